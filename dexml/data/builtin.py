"""Data sets that dexml makes by itself, by the name they have in `dexml prepare NAME`."""

from __future__ import annotations

import argparse
import os
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

    _no_options("iconclass", words)
    return build_iconclass(folder)


def _icd10cm(folder: Path, words: Sequence[str]) -> Path:
    from dexml.data.icd10cm import build_icd10cm

    _no_options("icd10cm", words)
    return build_icd10cm(folder)


def _synthetic(folder: Path, words: Sequence[str]) -> Path:
    from dexml.data.synthetic import synthetic_command

    return synthetic_command(folder, words)


def _no_options(name: str, words: Sequence[str]) -> None:
    about = f"{BUILTIN[name].about}. It has no options."
    argparse.ArgumentParser(prog=f"dexml prepare {name} [DEST]", description=about).parse_args(words)


BUILTIN: dict[str, Builtin] = {
    "iconclass": Builtin("Iconclass-KW-en", "texts about pictures to their keywords", _iconclass),
    "icd10cm": Builtin("ICD10CM", "words for diseases to ICD-10-CM codes and their parents", _icd10cm),
    "synthetic": Builtin("Synthetic", "any size, known structure; options: --help", _synthetic),
}


def prepare_builtin(words: Sequence[str]) -> Path:
    """`NAME [DEST] [--root Datasets] [options of that set]` to its folder; DataError for a place it cannot use."""
    name, *rest = words
    dest = Path(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--root", type=Path, default=Path("Datasets"))
    args, options = parser.parse_known_args(rest)
    folder = dest or args.root / BUILTIN[name].folder
    if not {"-h", "--help"} & set(options):
        _check_parent(folder.absolute().parent, "--root " if dest is None else "")
    return BUILTIN[name].make(folder, options)


def _check_parent(root: Path, flag: str) -> None:
    from dexml.data.files import DataError

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{flag}{root}: cannot make that folder ({error})") from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise DataError(f"{flag}{root}: no write permission: name another folder")
