"""A DatasetDict of Hugging Face `datasets`, as `save_to_disk` writes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dexml.data.write.source import Point, WriteSource
from dexml.data.write.tables import write_labels

SPLITS = {"trn": "train", "tst": "test", "dev": "validation"}


def write_hf(source: WriteSource, folder: Path) -> None:
    """Splits train, test, validation with the columns text, labels (a list of ClassLabel) and, if any is not 1,
    relevance. labels.csv holds the text of every class name, which differ where two labels have one text."""
    from datasets import Dataset, DatasetDict

    scratch = folder / "arrow"
    scratch.mkdir()
    files = {SPLITS[split]: _write_arrow(source, split, scratch) for split in source.dataset.splits}
    data = DatasetDict({split: Dataset.from_file(str(path)) for split, path in files.items()})
    data.save_to_disk(str(folder))
    shutil.rmtree(scratch)
    write_labels(source.names, source.texts, folder)


def _write_arrow(source: WriteSource, split: str, folder: Path) -> Path:
    from datasets.arrow_writer import ArrowWriter

    path = folder / f"{split}.arrow"
    graded = source.graded
    with ArrowWriter(features=_features(source.names, graded), path=str(path)) as writer:
        for batch in source.batches(split):
            writer.write_batch(_columns(batch, graded))
        writer.finalize()
    return path


def _features(names: list[str], graded: bool) -> Any:
    from datasets import ClassLabel, Features, Sequence, Value

    columns = {"text": Value("string"), "labels": Sequence(ClassLabel(names=names))}
    return Features(columns | ({"relevance": Sequence(Value("float32"))} if graded else {}))


def _columns(batch: list[Point], graded: bool) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "text": [point.text for point in batch],
        "labels": [point.labels for point in batch],
    }
    return columns | ({"relevance": [point.relevance for point in batch]} if graded else {})
