"""Label texts from a file: `id<TAB>text`, one text a line, or a table with two columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dexml.data.convert.records import Fault, LabelText
from dexml.data.convert.tables import csv_rows, json_rows
from dexml.data.convert.textlines import first_line, stripped_lines
from dexml.data.files import DataError


def read_label_texts(path: Path) -> Iterator[LabelText | Fault]:
    """In the order of the file. A line without a tab, when the first has none, is the text of the label of its number,
    counted from 0. Of a .csv or .jsonl the first two columns are id and text."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of label texts")
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    if suffix in ("csv", "jsonl"):
        return _table(path, suffix)
    return _tabbed(path) if "\t" in first_line(path) else numbered_label_texts(path)


def numbered_label_texts(path: Path) -> Iterator[LabelText | Fault]:
    """Line i, counted from 0, is the text of label i."""
    for number, line in stripped_lines(path):
        yield LabelText(str(number - 1), line, f"{path}:{number}")


def _tabbed(path: Path) -> Iterator[LabelText | Fault]:
    for number, line in stripped_lines(path):
        name, tab, text = line.partition("\t")
        where = f"{path}:{number}"
        if tab:
            yield LabelText(name, text, where)
        elif line.strip():
            yield Fault(where, "no tab: every line is id<TAB>text, as the first")


def _table(path: Path, suffix: str) -> Iterator[LabelText | Fault]:
    rows = csv_rows(path)[1] if suffix == "csv" else json_rows(path)
    for number, row in rows:
        where = f"{path}:{number}"
        if isinstance(row, Exception):
            yield Fault(where, str(row))
        elif len(row) < 2:
            yield Fault(where, "one column: id and text are needed")
        else:
            name, text = list(row.values())[:2]
            yield LabelText(str(name), "" if text is None else str(text), where)
