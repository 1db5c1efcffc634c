"""A data folder, loaded and checked as a whole before anything long starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.files import DataError, atomic_write
from dexml.data.notices import NAMES, label_notices, point_notices, summary
from dexml.data.relevance import load_filters, load_relevance, remove_cells
from dexml.data.textfile import Lines

__all__ = ["DataError", "Dataset", "Split"]

FILTER_FILES = {"trn": "filter_labels_train.txt", "tst": "filter_labels_test.txt"}


@dataclass(frozen=True)
class Split:
    """N texts, relevance [N, L] float32 and filters [N, L] of bool, cells never to be predicted, or None."""

    name: str
    texts: Lines
    relevance: sparse.csr_matrix
    filters: sparse.csr_matrix | None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Dataset:
    """Points, label texts and relevance of a folder in the layout of Datasets/README.md.

    Points without labels are kept: few nets learn from them, in evaluation they count as 0.
    """

    path: Path
    label_texts: Lines
    splits: dict[str, Split]
    notices: list[str] = field(default_factory=list)
    """What a user should know but need not mend, one line each."""

    @classmethod
    def load(cls, path: str | Path, splits: Sequence[str] = ("trn", "tst")) -> Dataset:
        """Reads these splits, and `dev` when its files are there; DataError names file, line or count, and the mend."""
        path = Path(path)
        names = _present(path, splits)
        labels = Lines(path / "raw" / "Y.txt")
        _check_labels(labels)
        notices: list[str] = []
        loaded = {name: _load_split(path, name, labels, notices) for name in names}
        dataset = cls(path, labels, loaded, notices)
        notices[:0] = [summary(dataset)]
        notices.extend(label_notices(dataset))
        return dataset

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.path)).name  # a link keeps its own name  # noqa: PTH100

    @property
    def n_labels(self) -> int:
        return len(self.label_texts)

    @property
    def trn(self) -> Split:
        return self._split("trn")

    @property
    def tst(self) -> Split:
        return self._split("tst")

    @property
    def dev(self) -> Split | None:
        return self.splits.get("dev")

    @property
    def filters(self) -> dict[str, sparse.csr_matrix | None]:
        """Of each split: the cells never to be predicted."""
        return {name: split.filters for name, split in self.splits.items()}

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(f"{self.path}: split {name!r} was not loaded (loaded: {', '.join(self.splits)})")
        return self.splits[name]

    def validation_rows(self, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Training rows that stay and the n held out, both ascending; `val_inds_<n>.npy` is used if there, else made.

        A new choice is drawn among points with labels; its file then fixes it for every later run and seed.
        """
        points = len(self.trn)
        if not 0 < n < points:
            raise DataError(
                f"num_val_points is {n}: it must be between 1 and {points - 1}, the training points less one"
            )
        path = self.path / f"val_inds_{n}.npy"
        held = _read_rows(path, n, points) if path.exists() else self._draw_rows(path, n, seed)
        return np.setdiff1d(np.arange(points), held, assume_unique=True), held

    def _draw_rows(self, path: Path, n: int, seed: int) -> NDArray[np.int64]:
        labelled = np.flatnonzero(np.diff(self.trn.relevance.indptr))
        if n >= len(labelled):
            raise DataError(
                f"num_val_points is {n} but only {len(labelled)} training points of {self.path} have labels"
            )
        rows = np.sort(np.random.default_rng(seed).choice(labelled, n, replace=False)).astype(np.int64)
        with atomic_write(path) as file:
            np.save(file, rows, allow_pickle=False)
        return rows


def _present(path: Path, splits: Sequence[str]) -> list[str]:
    """The splits to load; DataError lists every file that is missing."""
    if not path.is_dir():
        raise DataError(
            f"{path}: no such data folder. It holds raw/trn_X.txt, raw/tst_X.txt, raw/Y.txt (one text a line), "
            f"Y.trn.npz and Y.tst.npz (see Datasets/README.md); `dexml prepare iconclass` makes a small one"
        )
    unknown = [name for name in splits if name not in NAMES]
    if unknown:
        raise DataError(f"unknown split {unknown[0]!r}: choose from {', '.join(NAMES)}")
    dev = [] if "dev" in splits or not any((path / file).exists() for file in _files("dev")) else ["dev"]
    names = [*splits, *dev]
    wanted = ["raw/Y.txt", *(file for name in names for file in _files(name))]
    missing = [file for file in wanted if not (path / file).is_file()]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: the layout is described in Datasets/README.md")
    return names


def _files(split: str) -> tuple[str, str]:
    return f"raw/{split}_X.txt", f"Y.{split}.npz"


def _check_labels(labels: Lines) -> None:
    if not len(labels):
        raise DataError(f"{labels.path} has no lines: there are no labels to predict")
    blank = labels.blank()
    if len(blank):
        raise DataError(
            f"{labels.path}:{blank[0] + 1}: empty label text ({len(blank)} such lines): "
            f"give every label a text, its name or id"
        )


def _load_split(path: Path, name: str, labels: Lines, notices: list[str]) -> Split:
    text_file, matrix_file = _files(name)
    texts = Lines(path / text_file)
    if not len(texts):
        raise DataError(f"{texts.path} has no lines: there are no {NAMES[name]} points")
    relevance = load_relevance(path / matrix_file, texts, labels)
    filters = _load_filters(path, name, relevance)
    if filters is not None:
        before = relevance.nnz
        relevance = remove_cells(relevance, filters)
        removed = before - relevance.nnz
        if removed:
            notices.append(f"{FILTER_FILES[name]}: {removed} filtered pairs were labels in {matrix_file}: removed")
    if name == "trn" and not relevance.nnz:
        raise DataError(f"{path / matrix_file} holds no relevant cell: there is nothing to learn")
    notices.extend(point_notices(name, texts, relevance))
    return Split(name, texts, relevance, filters)


def _load_filters(path: Path, name: str, relevance: sparse.csr_matrix) -> sparse.csr_matrix | None:
    file = FILTER_FILES.get(name)
    if file is None or not (path / file).exists():
        return None
    return load_filters(path / file, *relevance.shape)


def _read_rows(path: Path, n: int, points: int) -> NDArray[np.int64]:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable array ({error}): delete it to draw a new one") from None
    valid = isinstance(rows, np.ndarray) and rows.shape == (n,) and rows.dtype.kind in "iu"
    if not valid or len(np.unique(rows)) != n or not 0 <= rows.min() <= rows.max() < points:
        raise DataError(f"{path}: expected {n} different row numbers in 0..{points - 1}: delete it to draw new ones")
    return np.sort(rows).astype(np.int64)
