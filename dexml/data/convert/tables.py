"""Tables with a column of texts and one of labels: CSV (and TSV), JSON lines, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dexml.data.convert.cells import label_names, relevance_values
from dexml.data.convert.records import Fault, Options, Record, Source, Unreadable, split_named
from dexml.data.convert.textlines import about_lines, first_line, numbered_lines, split_files
from dexml.data.files import DataError

TEXT_COLUMNS, LABEL_COLUMNS = ("text", "texts", "query", "title"), ("labels", "label", "tags", "categories")
RELEVANCE = "relevance"  # a column of numbers, one for each label
SEPARATORS = ",;\t|"
LONGEST = 1 << 26  # characters of one CSV cell; a quote that is never closed takes the rest of the file for one
BATCH = 1024  # rows of a Parquet file in memory

Row = Mapping[str, Any]
Rows = Iterator[tuple[int, Row | Unreadable]]


def read_csv(path: Path, options: Options) -> Source:
    """A CSV file with a header; its separator is the one of , ; tab | that occurs most in the header."""
    columns, rows = csv_rows(path)
    return Source(_records(path, rows, Columns.choose(path, columns, options)), about_lines(path))


def read_jsonl(path: Path, options: Options) -> Source:
    """One JSON object a line; the keys of the first one are the columns."""
    first = next((row for _, row in json_rows(path) if isinstance(row, dict)), None)
    if first is None:
        raise DataError(f"{path}: there is no JSON object in it: give one a line, as in {EXAMPLE}")
    return Source(_records(path, json_rows(path), Columns.choose(path, list(first), options)), about_lines(path))


def read_parquet(path: Path, options: Options) -> Source:
    """A Parquet file, read a few rows at a time; messages give the row, counted from 1."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
    columns = Columns.choose(path, file.schema_arrow.names, options)
    return Source(_records(path, _parquet_rows(path, file, columns.used), columns), file.metadata.num_rows)


def fits_tables(path: Path) -> bool:
    return path.is_dir() and bool(_tables(path))


def read_tables(path: Path, options: Options) -> Source:
    """A folder of train.csv, test.csv and the like; parts may be numbered, train-00000.parquet."""
    opened = [(READERS[suffix](file, options), split) for file, split, suffix in _tables(path)]
    if not opened:
        raise DataError(f"{path} holds no train{', train'.join(READERS)}")
    named = bool(options.split_column)
    records = (
        record if named or isinstance(record, Fault) else record._replace(split=split)
        for source, split in opened
        for record in source.records
    )
    return Source(records, sum(source.about for source, _ in opened))


def _tables(path: Path) -> list[tuple[Path, str, str]]:
    return [(file, split, suffix) for suffix in READERS for file, split in split_files(path, suffix)]


READERS = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}
EXAMPLE = '{"text": "a ship in a storm", "labels": ["ship", "storm"]}'


class Columns:
    """Which columns of a table are used, and how a row becomes a record."""

    def __init__(self, text: Sequence[str], labels: str, options: Options, relevance: str) -> None:
        self.text, self.labels, self.options, self.relevance = text, labels, options, relevance
        named = (*text, labels, options.split_column, options.group_column, relevance)
        self.used = list(dict.fromkeys(filter(None, named)))

    @classmethod
    def choose(cls, path: Path | str, present: Sequence[str], options: Options) -> Columns:
        """The columns named in the options, or those that are usual; DataError lists what there is."""
        text = options.text_columns or [name for name in TEXT_COLUMNS if name in present][:1]
        labels = options.label_column or next((name for name in LABEL_COLUMNS if name in present), "")
        there = f"the columns are {', '.join(map(repr, present))}"
        if not text or not labels:
            flag = "--label-column" if text else "--text-column"
            raise DataError(f"{path}: which column is it? {there}: name one with {flag}")
        columns = cls(text, labels, options, RELEVANCE if RELEVANCE in present else "")
        missing = [name for name in columns.used if name not in present]
        if missing:
            raise DataError(f"{path}: there is no column {missing[0]!r}: {there}")
        return columns

    def record(self, row: Row, where: str) -> Record:
        """Raises Unreadable."""
        options = self.options
        missing = [name for name in self.used if name not in row]
        if missing:
            raise Unreadable(f"there is no {missing[0]!r}: give an empty one where there is nothing")
        text = " ".join(_text(row, name) for name in self.text)
        labels = label_names(row[self.labels], options.delimiter)
        split = split_named(_text(row, options.split_column)) if options.split_column else "trn"
        group = _text(row, options.group_column) if options.group_column else ""
        values = relevance_values(row[self.relevance], len(labels)) if self.relevance else None
        return Record(text, labels, split, group, values, where=where)


def _text(row: Row, name: str) -> str:
    value = row[name]
    if isinstance(value, list | dict | bytes):
        raise Unreadable(f"column {name!r} holds a {type(value).__name__}: a text is needed")
    return "" if value is None else str(value)


def _records(path: Path, rows: Rows, columns: Columns) -> Iterator[Record | Fault]:
    for number, row in rows:
        where = f"{path}:{number}"
        try:
            if isinstance(row, Unreadable):
                raise row
            yield columns.record(row, where)
        except Unreadable as error:
            yield Fault(where, str(error))


def csv_rows(path: Path) -> tuple[list[str], Rows]:
    csv.field_size_limit(LONGEST)
    header = first_line(path)
    separator = max(SEPARATORS, key=header.count)
    columns = next(csv.reader([header], delimiter=separator), [])
    doubled = next((name for name in columns if columns.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"{path}:1: two columns are named {doubled!r}: rename one")
    return columns, _csv_body(path, separator, columns)


def _csv_body(path: Path, separator: str, columns: list[str]) -> Rows:
    lines = (line for _, line in numbered_lines(path))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    next(reader, None)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            lost = f", all to line {reader.line_num} is lost" if reader.line_num > number else ""
            yield number, Unreadable(f"{error}{lost}: a quote is in the wrong place, or not doubled inside a cell")
            continue
        if cells is None:
            return
        if len(cells) == len(columns):
            yield number, dict(zip(columns, cells, strict=True))
        elif cells:
            mend = f"put quotes around a cell that holds {separator!r}"
            yield number, Unreadable(f"{len(cells)} cells in {len(columns)} columns: {mend}")


def json_rows(path: Path) -> Rows:
    """(line, object) of a file of JSON lines, numbers kept as they are spelled; blank lines are passed over."""
    for number, line in numbered_lines(path):
        if line.isspace():
            continue
        try:
            row = json.loads(line, parse_float=str, parse_int=str)
            yield number, row if isinstance(row, dict) else Unreadable(f"not an object, as in {EXAMPLE}")
        except (ValueError, RecursionError) as error:
            yield number, Unreadable(f"not JSON ({error}): give one object a line, as in {EXAMPLE}")


def _parquet_rows(path: Path, file: Any, columns: list[str]) -> Rows:
    import pyarrow as pa

    number = 0
    try:
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged after row {number} ({error}): copy it again") from None
