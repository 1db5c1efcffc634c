"""What a user should know about a data folder without having to mend it, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.textfile import Lines

if TYPE_CHECKING:
    from dexml.data.dataset import Dataset

NAMES = {"trn": "training", "tst": "test", "dev": "development"}


def point_notices(name: str, texts: Lines, relevance: sparse.csr_matrix) -> list[str]:
    bare, blank = np.flatnonzero(np.diff(relevance.indptr) == 0), texts.blank()
    use = "skipped as training queries" if name == "trn" else "they count as 0 in every metric"
    notices = []
    if len(bare):
        notices.append(f"{len(bare)} {NAMES[name]} points have no label ({use}): {texts.path.name} {_lines(bare)}")
    if len(blank):
        notices.append(f"{len(blank)} {NAMES[name]} points have an empty text: {texts.path.name} {_lines(blank)}")
    return notices


def summary(dataset: Dataset) -> str:
    points = ", ".join(f"{len(split):,} {NAMES[name]} points" for name, split in dataset.splits.items())
    first = next(iter(dataset.splits.values()), None)
    mean = f", {first.relevance.nnz / len(first):.2f} labels a {NAMES[first.name]} point" if first else ""
    return f"{dataset.name}: {points}, {dataset.n_labels:,} labels{mean}"


def label_notices(dataset: Dataset) -> list[str]:
    notices = []
    if "trn" in dataset.splits:
        counts = np.bincount(dataset.trn.relevance.indices, minlength=dataset.n_labels)
        unseen = np.flatnonzero(counts == 0)
        if len(unseen):
            notices.append(f"{len(unseen)} labels have no training point, only their text: Y.txt {_lines(unseen)}")
    # 64-bit hashes instead of the texts themselves: 8 bytes a label.
    hashes = np.fromiter(map(hash, dataset.label_texts), np.int64, dataset.n_labels)
    _, first = np.unique(hashes, return_index=True)
    repeated = np.setdiff1d(np.arange(dataset.n_labels), first, assume_unique=True)
    if len(repeated):
        notices.append(
            f"{len(repeated)} labels repeat the text of an earlier label, so a text encoder cannot tell them apart: "
            f"Y.txt {_lines(repeated)}"
        )
    return notices


def _lines(rows: NDArray[np.integer], shown: int = 5) -> str:
    """`lines 3, 7, 12, ...`, counted from 1 as editors do."""
    return "lines " + ", ".join(str(row + 1) for row in rows[:shown].tolist()) + (", ..." if len(rows) > shown else "")
