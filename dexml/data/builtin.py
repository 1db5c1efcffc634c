"""Data sets that dexml makes by itself, by the name they have in `dexml prepare NAME`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Builtin(NamedTuple):
    folder: str
    """Name of its folder where the user gives none."""
    about: str
    make: Callable[[Path, Sequence[str]], Path]
    """(folder to make, further words of the command line) -> that folder; a complete one is left as it is."""


def _iconclass(folder: Path, words: Sequence[str]) -> Path:
    from dexml.data.formats import build_iconclass

    _no_words("iconclass", words)
    return build_iconclass(folder)


def _icd10cm(folder: Path, words: Sequence[str]) -> Path:
    from dexml.data.icd10cm import build_icd10cm

    _no_words("icd10cm", words)
    return build_icd10cm(folder)


def _synthetic(folder: Path, words: Sequence[str]) -> Path:
    from dexml.data.synthetic import synthetic_command

    return synthetic_command(folder, words)


def _no_words(name: str, words: Sequence[str]) -> None:
    from dexml.data.files import DataError

    if words:
        raise DataError(f"dexml prepare {name} takes no {words[0]!r}: it has no options of its own")


BUILTIN: dict[str, Builtin] = {
    "iconclass": Builtin("Iconclass-KW-en", "texts about pictures to their keywords", _iconclass),
    "icd10cm": Builtin("ICD10CM", "words for diseases to ICD-10-CM codes and their parents", _icd10cm),
    "synthetic": Builtin("Synthetic", "any size, known structure; options: --help", _synthetic),
}
