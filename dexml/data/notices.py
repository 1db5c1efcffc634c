"""What a user should know about a data folder without having to mend it, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.textfile import Lines

if TYPE_CHECKING:
    from dexml.data.dataset import Dataset

MANY = 0.01
"""What concerns at least this share of the points or labels is a warning."""
NAMES = {"trn": "training", "tst": "test", "dev": "development"}


class Warned(str):
    """A notice of something that most users will want to mend."""


def notice(text: str, share: float) -> str:
    """The text, as a warning if what it says is true of MANY."""
    return Warned(text) if share >= MANY else text


def point_notices(name: str, texts: Lines, relevance: sparse.csr_matrix) -> list[str]:
    bare, blank = np.flatnonzero(np.diff(relevance.indptr) == 0), texts.blank()
    use = "few nets learn from them" if name == "trn" else "they count as 0 in every metric"
    notices = []
    if len(bare):
        told = f"{len(bare)} {NAMES[name]} points have no label ({use}): {texts.path.name} {row_lines(bare)}"
        notices.append(notice(told, len(bare) / len(texts)))
    if len(blank):
        told = f"{len(blank)} {NAMES[name]} points have an empty text: {texts.path.name} {row_lines(blank)}"
        notices.append(notice(told, len(blank) / len(texts)))
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
            notices.append(f"{len(unseen)} labels have no training point, only their text: Y.txt {row_lines(unseen)}")
    # 64-bit hashes instead of the texts themselves: 8 bytes a label.
    hashes = np.fromiter(map(hash, dataset.label_texts), np.int64, dataset.n_labels)
    _, first = np.unique(hashes, return_index=True)
    repeated = np.setdiff1d(np.arange(dataset.n_labels), first, assume_unique=True)
    if len(repeated):
        told = (
            f"{len(repeated)} labels repeat the text of an earlier label, so a text encoder cannot tell them apart: "
            f"Y.txt {row_lines(repeated)}"
        )
        notices.append(notice(told, len(repeated) / dataset.n_labels))
    return notices


def row_lines(rows: NDArray[np.integer], shown: int = 5) -> str:
    """`lines 3, 7, 12, ...`, counted from 1 as editors do."""
    return "lines " + ", ".join(str(row + 1) for row in rows[:shown].tolist()) + (", ..." if len(rows) > shown else "")
