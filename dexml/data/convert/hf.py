"""Hugging Face data sets: in memory, on disk (`save_to_disk`), or from the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dexml.data.convert.records import SPLITS, Fault, LabelText, Options, Record, Source, Unreadable
from dexml.data.convert.tables import Columns
from dexml.data.files import DataError

MARKS = ("dataset_dict.json", "state.json")
BATCH = 1024


def fits_saved(path: Path) -> bool:
    return any((path / mark).is_file() for mark in MARKS)


def read_saved(path: Path, options: Options) -> Source:
    """A folder of `save_to_disk`."""
    from datasets import load_from_disk

    try:
        data = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a folder of save_to_disk ({error}): save it again") from None
    return read_dataset(data, options, str(path))


def read_hub(name: str, options: Options) -> Source:
    """`owner/name`, or `owner/name:config`, of the Hub or its local cache."""
    from datasets import load_dataset

    path, _, config = name.partition(":")
    try:
        data = load_dataset(path, config or None)
    except Exception as error:  # datasets, huggingface_hub, requests and pyarrow each raise their own kinds
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{name}: cannot be loaded from the Hub ({type(error).__name__}: {reason}): without a network, fetch it "
            f"elsewhere with load_dataset, keep it with save_to_disk and give that folder"
        ) from None
    return read_dataset(data, options, name)


def read_dataset(data: Any, options: Options, name: str = "data set") -> Source:
    """A `datasets.Dataset`, or a DatasetDict by the names of its splits; ClassLabels become their names."""
    parts = _splits(data, name)
    first = parts[0][1]
    columns = Columns.choose(name, first.column_names, options)
    names = _class_names(first.features[columns.labels])
    texts = (LabelText(label, label) for label in names) if names else None
    records = (record for split, part in parts for record in _records(part, split, columns, names, name))
    return Source(records, sum(len(part) for _, part in parts), texts)


def _splits(data: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(data, dict):
        return [("trn", data)]
    parts = [(SPLITS[split.lower()], part) for split, part in data.items() if split.lower() in SPLITS]
    if not parts:
        raise DataError(f"{name}: none of the splits {', '.join(data)} is named train, validation or test")
    return parts


def _class_names(feature: Any) -> list[str]:
    """The names of a ClassLabel, alone or in a list; empty for other features."""
    inner = getattr(feature, "feature", feature)
    return list(getattr(inner, "names", None) or [])


def _records(data: Any, split: str, columns: Columns, names: list[str], name: str) -> Iterator[Record | Fault]:
    number = 0
    for batch in data.select_columns(columns.used).iter(BATCH):
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            number += 1
            where = f"{name} ({split}):{number}"
            try:
                labels = row[columns.labels]
                row[columns.labels] = _named(labels, names) if names else labels
                record = columns.record(row, where)
                yield record if columns.options.split_column else record._replace(split=split)
            except Unreadable as error:
                yield Fault(where, str(error))


def _named(labels: Any, names: list[str]) -> list[str]:
    """Names of class numbers; None and -1 are no label."""
    numbers = labels if isinstance(labels, list) else [labels]
    return [names[number] for number in numbers if number is not None and number >= 0]
