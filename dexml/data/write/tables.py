"""One line a point: CSV with a header, LibMultiLabel's `id<TAB>labels<TAB>text`; labels.csv holds the label texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dexml.data.files import DataError
from dexml.data.write.source import Point, WriteSource, number

CSV_FILES = {"trn": "train.csv", "tst": "test.csv", "dev": "dev.csv"}
LIBMULTILABEL_FILES = {"trn": "train.txt", "tst": "test.txt", "dev": "valid.txt"}
NO_PLACE = str.maketrans("\t\r", "  ")  # LibMultiLabel has no quotes, so these would end a field or a line


def write_csv(source: WriteSource, folder: Path) -> None:
    """Columns text and labels, a JSON list of names; relevance, a JSON list of numbers, if any of them is not 1."""
    write_labels(source.names, source.texts, folder)
    graded = source.graded
    for split in source.dataset.splits:
        header = ("text", "labels", "relevance") if graded else ("text", "labels")
        rows = (_csv_row(point, source.names, graded) for point in source.points(split))
        _write_rows(folder / CSV_FILES[split], header, rows)


def _csv_row(point: Point, names: list[str], graded: bool) -> list[str]:
    labels = json.dumps([names[label] for label in point.labels], ensure_ascii=False)
    grades = [json.dumps([number(value) for value in point.relevance])] if graded else []
    return [point.text, labels, *grades]


def write_libmultilabel(source: WriteSource, folder: Path) -> None:
    """Labels by id, with spaces between them. A tab or carriage return in a text becomes a space.

    DataError for relevance other than 1, which the format cannot hold.
    """
    if source.graded:
        raise DataError(
            f"{source.dataset.path} holds relevance other than 1, for which LibMultiLabel has no place: "
            f"choose hf, beir or csv"
        )
    write_labels(source.ids, source.texts, folder)
    for split in source.dataset.splits:
        with (folder / LIBMULTILABEL_FILES[split]).open("w", encoding="utf-8", newline="\n") as file:
            for point in source.points(split):
                labels = " ".join(source.ids[label] for label in point.labels)
                file.write(f"{split}-{point.row}\t{labels}\t{point.text.translate(NO_PLACE)}\n")


def write_labels(names: Sequence[str], texts: Sequence[str], folder: Path) -> None:
    """labels.csv: name and text of each label, in their order, also of labels without a point."""
    _write_rows(folder / "labels.csv", ("label", "text"), zip(names, texts, strict=True))


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        # Everything in quotes, also what only some readers take for a line end.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
