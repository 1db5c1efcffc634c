"""A DatasetDict of Hugging Face `datasets`, as `save_to_disk` writes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dexml.data.write.source import WriteSource
from dexml.data.write.tables import write_labels

SPLITS = {"trn": "train", "tst": "test", "dev": "validation"}


def write_hf(source: WriteSource, folder: Path) -> None:
    """Splits train, test, validation with the columns text, labels (a list of names) and, if any is not 1, relevance.

    labels.csv holds the order of the names, and their texts, which are others where two labels have one text. (The
    library copies the names of a ClassLabel every 1,000 rows, too slow for many labels.)
    """
    from datasets import Dataset, DatasetDict

    scratch = folder / "arrow"
    scratch.mkdir()
    files = {SPLITS[split]: _write_arrow(source, split, scratch) for split in source.dataset.splits}
    data = DatasetDict({split: Dataset.from_file(str(path)) for split, path in files.items()})
    data.save_to_disk(str(folder))
    shutil.rmtree(scratch)
    write_labels(source.names, source.texts, folder)


def _write_arrow(source: WriteSource, split: str, folder: Path) -> Path:
    import pyarrow as pa
    from datasets.arrow_writer import ArrowWriter

    path = folder / f"{split}.arrow"
    features = _features(source.graded)
    with ArrowWriter(features=features, path=str(path)) as writer:
        for batch in source.batches(split):
            columns: dict[str, list[Any]] = {
                "text": [point.text for point in batch],
                "labels": [[source.names[label] for label in point.labels] for point in batch],
                "relevance": [point.relevance for point in batch],
            }
            writer.write_table(pa.table({name: columns[name] for name in features}, schema=features.arrow_schema))
        writer.finalize()
    return path


def _features(graded: bool) -> Any:
    from datasets import Features, Sequence, Value

    columns = {"text": Value("string"), "labels": Sequence(Value("string"))}
    return Features(columns | ({"relevance": Sequence(Value("float32"))} if graded else {}))
