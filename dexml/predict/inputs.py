"""Texts to predict labels for, read as a stream: lines, or the rows of a table with all their columns.

A file is read through once before the work begins, so that a bad line is told at once, not after an hour.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dexml.data.convert.records import Unreadable
from dexml.data.convert.tables import TEXT_COLUMNS, csv_rows
from dexml.data.convert.textlines import numbered_lines, stripped_lines
from dexml.data.files import DataError

Row = Mapping[str, Any]
BATCH = 1024  # rows of a Parquet file in memory


class Item(NamedTuple):
    """A text and the row that it stands in; a text that is not of a table is a row of its own."""

    text: str
    row: Row


@dataclass(frozen=True)
class Input:
    """Items that can be read several times, unless they come from standard input."""

    items: Callable[[], Iterator[Item]]
    columns: Sequence[str] = ("text",)
    table: bool = False
    """rows with columns of their own"""
    total: int | None = None
    """None: only known at the end"""
    blank: int = 0
    """items without a text, which have no labels"""
    schema: Any = None
    """types of the columns of a Parquet file, as pyarrow has them"""


def given_texts(texts: Sequence[str]) -> Input:
    """The texts of a command line; DataError for an empty one."""
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise DataError(f"text {number}: an empty text has no labels; leave it out")
    return Input(lambda: (Item(text, {"text": text}) for text in texts), total=len(texts))


def standard_input() -> Input:
    """Lines of standard input, as they come; DataError names one that is empty or not UTF-8."""

    def items() -> Iterator[Item]:
        number = 0
        for number, line in enumerate(sys.stdin.buffer, start=1):
            try:
                text = line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(f"standard input:{number}: not valid UTF-8 (byte 0x{line[error.start]:02x})") from None
            if not text:
                raise DataError(f"standard input:{number}: an empty text has no labels; leave it out")
            yield Item(text, {"text": text})
        if not number:
            raise DataError("no texts: give them after the bundle, or one a line on standard input")

    return Input(items)


def read_file(path: Path, text_columns: Sequence[str] = ()) -> Input:
    """The lines of a .txt, the rows of a .csv, .tsv, .jsonl or .parquet file; the first three may be gzipped.

    Args:
        text_columns: joined by a space they are the text; default: the first of text, texts, query, title.
    Raises:
        DataError: names file and line of what cannot be read.
    """
    suffix = Path(path.stem if path.suffix == ".gz" else path).suffix
    if suffix not in READERS:
        raise DataError(f"{path}: the name must end in {', '.join(READERS)}, so that the format is known")
    rows = READERS[suffix]
    columns: dict[str, None] = {}
    total = blank = 0
    texts: Sequence[str] = ()
    for place, row in rows(path):
        columns |= dict.fromkeys(row)
        texts = texts or _text_columns(path, row, text_columns)
        blank += not _text(row, texts, place)
        total += 1
    schema = _parquet_schema(path) if suffix == ".parquet" else None
    items = lambda: (Item(_text(row, texts, place), row) for place, row in rows(path))  # noqa: E731
    return Input(items, list(columns), suffix != ".txt", total, blank, schema)


def _text_columns(path: Path, row: Row, wanted: Sequence[str]) -> Sequence[str]:
    there = f"the columns are {', '.join(map(repr, row))}"
    missing = next((name for name in wanted if name not in row), None)
    if missing is not None:
        raise DataError(f"{path}: there is no column {missing!r}: {there}")
    chosen = wanted or [name for name in TEXT_COLUMNS if name in row][:1]
    if not chosen:
        raise DataError(f"{path}: which column is the text? {there}: name one with --text-column")
    return chosen


def _text(row: Row, columns: Sequence[str], place: str) -> str:
    values = [row.get(name) for name in columns]
    for name, value in zip(columns, values, strict=True):
        if not isinstance(value, str | None):
            raise DataError(f"{place}: column {name!r} holds {str(value)[:40]!r}: a text is needed")
    text = " ".join(filter(None, values)).strip()
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(f"{place}: not valid UTF-8: convert the file, for instance with `iconv -f latin1 -t utf-8`")
    return text


# ---- rows of each format, with their places -------------------------------------------------------------------------

Rows = Iterator[tuple[str, Row]]


def _lines(path: Path) -> Rows:
    return ((f"{path}:{number}", {"text": line}) for number, line in stripped_lines(path))


def _csv(path: Path) -> Rows:
    for number, row in csv_rows(path)[1]:
        if isinstance(row, Unreadable):
            raise DataError(f"{path}:{number}: {row}")
        yield f"{path}:{number}", row


def _jsonl(path: Path) -> Rows:
    for number, line in numbered_lines(path):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON ({error}): give one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: not an object, as in {{"text": "a ship in a storm"}}')
        yield f"{path}:{number}", row


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except (pa.ArrowException, OSError) as error:
        after = f"damaged after row {number}" if number else "not a readable Parquet file"
        raise DataError(f"{path}: {after} ({error})") from None


def _parquet_schema(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_schema(path)


READERS: dict[str, Callable[[Path], Rows]] = {
    ".txt": _lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
