"""Predicted labels as text, JSON lines, a table or a Parquet file, written as they come."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from dexml.data.files import DataError
from dexml.predict.inputs import Input, Item

Found = list[dict[str, Any]]
"""Labels of a text, best first: id, text, score, probability"""
LIST = "predictions"
"""Key that JSON lines add to the row of a table"""
COLUMNS = {"predicted": "text", "predicted_ids": "id", "scores": "score", "probabilities": "probability"}
"""Columns that tables get, each a list, and what of the labels they hold"""


class Writer(Protocol):
    """Takes items with their labels; `close` ends the file."""

    def write(self, items: Sequence[Item], found: Sequence[Found]) -> None: ...

    def close(self) -> None: ...


class Text:
    """The text, then a line a label."""

    def __init__(self, file: BinaryIO, given: Input, probabilities: bool, threshold: float | None) -> None:
        self.file, self.value = file, "score" if threshold is None else "probability"

    def write(self, items: Sequence[Item], found: Sequence[Found]) -> None:
        for item, labels in zip(items, found, strict=True):
            lines = [item.text, *(f"  {label[self.value]:.3f}  {label['text']}" for label in labels)]
            self.file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None: ...


class Json:
    """One object a text, {"id", "text", "labels"}; of a table its row with the labels as `predictions`."""

    def __init__(self, file: BinaryIO, given: Input, probabilities: bool, threshold: float | None) -> None:
        self.file, self.table, self.written = file, given.table, 0
        if self.table:
            _check_free(given, [LIST])

    def write(self, items: Sequence[Item], found: Sequence[Found]) -> None:
        for item, labels in zip(items, found, strict=True):
            row = (
                {**item.row, LIST: labels} if self.table else {"id": self.written, "text": item.text, "labels": labels}
            )
            self.file.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
            self.written += 1

    def close(self) -> None: ...


class Csv:
    """The columns that were there, and those of `COLUMNS` as JSON lists."""

    separator = ","

    def __init__(self, file: BinaryIO, given: Input, probabilities: bool, threshold: float | None) -> None:
        self.file = file
        self.columns, self.added = given.columns, _added(given, probabilities)
        self._write([[*self.columns, *self.added]])

    def write(self, items: Sequence[Item], found: Sequence[Found]) -> None:
        rows = zip(items, found, strict=True)
        self._write(
            [_cell(item.row.get(name)) for name in self.columns]
            + [_cell([label[key] for label in labels]) for key in self.added.values()]
            for item, labels in rows
        )

    def _write(self, rows: Any) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator, lineterminator="\n").writerows(rows)
        self.file.write(text.getvalue().encode())

    def close(self) -> None: ...


class Tsv(Csv):
    separator = "\t"


class Parquet:
    """The columns that were there, as text where they are not of a Parquet file, and list columns."""

    def __init__(self, file: BinaryIO, given: Input, probabilities: bool, threshold: float | None) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        types = {"id": pa.int64(), "text": pa.string(), "score": pa.float64(), "probability": pa.float64()}
        self.added = _added(given, probabilities)
        self.kept = (
            given.schema if given.schema is not None else pa.schema([(name, pa.string()) for name in given.columns])
        )
        lists = [pa.field(name, pa.list_(types[key])) for name, key in self.added.items()]
        self.schema = pa.schema([*self.kept, *lists])
        self.typed = given.schema is not None
        self.writer = parquet.ParquetWriter(file, self.schema)

    def write(self, items: Sequence[Item], found: Sequence[Found]) -> None:
        import pyarrow as pa

        names = self.kept.names
        rows = [
            {name: item.row.get(name) if self.typed else _cell(item.row.get(name)) for name in names}
            | {name: [label[key] for label in labels] for name, key in self.added.items()}
            for item, labels in zip(items, found, strict=True)
        ]
        self.writer.write_table(pa.Table.from_pylist(rows, self.schema))

    def close(self) -> None:
        self.writer.close()


WRITERS: dict[str, Callable[[BinaryIO, Input, bool, float | None], Writer]] = {
    ".txt": Text,
    ".jsonl": Json,
    ".csv": Csv,
    ".tsv": Tsv,
    ".parquet": Parquet,
}


def writer_of(path: Path) -> Callable[[BinaryIO, Input, bool, float | None], Writer]:
    """The writer for a file of this name; DataError if it ends in none of those that are known."""
    if path.suffix not in WRITERS:
        raise DataError(f"{path}: the name must end in {', '.join(WRITERS)}, so that the format is known")
    return WRITERS[path.suffix]


def _added(given: Input, probabilities: bool) -> dict[str, str]:
    added = {name: key for name, key in COLUMNS.items() if probabilities or key != "probability"}
    _check_free(given, list(added))
    return added


def _check_free(given: Input, names: Sequence[str]) -> None:
    taken = next((name for name in names if name in given.columns), None)
    if taken is not None:
        raise DataError(f"there is a column {taken!r} already, which the predictions need: rename it")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
