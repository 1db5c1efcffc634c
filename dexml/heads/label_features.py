"""What clustering knows of a label: the points it has in training (PIFA), its text, the labels beside it.

PIFA, positive-instance feature aggregation: the sum of the normalised features of a label's training points,
normalised. Give the rows that are trained on only: never validation or test points.

N points, L labels, V columns of sparse features, D of dense ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.data.tokens import Tokens
from dexml.heads.pairs import Dense, Features, Ints, Sparse, unit_rows

WORK = 1 << 26  # products of a block, 8 bytes each while they are summed
ROWS = 1 << 15  # points read at a time


@dataclass(frozen=True)
class TfIdf:
    """TF-IDF of token ids: count times ln((1 + N) / (1 + df)) + 1, rows of length 1 (scikit-learn's default)."""

    idf: NDArray[np.float32]
    """[V], 0 for a token that is left out"""

    @classmethod
    def fit(cls, tokens: Tokens, rows: Ints | None = None, leave_out: Sequence[int] = ()) -> TfIdf:
        """From the points `rows` (all by default); `leave_out` are token ids that say nothing, as [CLS] and [SEP]."""
        rows = np.arange(len(tokens)) if rows is None else rows
        df, used = np.zeros(0, np.int64), 0
        for ids, lengths in _read(tokens, rows):
            cells = np.unique(np.repeat(np.arange(len(lengths)), lengths) << 32 | ids) & 0xFFFFFFFF
            df = _added(df, np.bincount(cells))
            used += len(lengths)
        idf = np.where(df > 0, np.log((1 + used) / (1 + df)) + 1, 0).astype(np.float32)
        idf[[token for token in leave_out if token < len(idf)]] = 0
        return cls(idf)

    def transform(self, tokens: Tokens, rows: Ints | None = None) -> sparse.csr_array:
        """[N, V] float32 of the points `rows`; tokens unknown to `fit` are left out."""
        rows = np.arange(len(tokens)) if rows is None else rows
        parts = [self._block(ids, lengths) for ids, lengths in _read(tokens, rows)]
        empty = sparse.csr_array((0, len(self.idf)), dtype=np.float32)
        return sparse.csr_array(sparse.vstack([empty, *parts], format="csr"))

    def _block(self, ids: Ints, lengths: Ints) -> sparse.csr_array:
        row = np.repeat(np.arange(len(lengths)), lengths)
        known = ids < len(self.idf)
        row, ids = row[known], ids[known]
        counts = sparse.csr_array((self.idf[ids], (row, ids)), shape=(len(lengths), len(self.idf)))
        counts.eliminate_zeros()
        return unit_rows(counts)


def pifa(relevance: Sparse, points: Dense | Sparse, keep: int | None = None) -> Features:
    """Unit rows [L, V] (CSR) or [L, D] (dense) of float32; labels without points get rows of zeros.

    Memory beside the result: one block of labels (sparse, WORK products) or of points (dense; a memory map will do).

    Args:
        relevance: [N, L], what is stored and not 0 is a label of the point.
        points: [N, V] sparse or [N, D] dense, any length; rows are normalised here.
        keep: of sparse features, the largest `keep` of a label only: popular labels otherwise use most of the columns.
    """
    if relevance.shape[0] != points.shape[0]:
        raise DataError(f"{relevance.shape[0]} rows of relevance but {points.shape[0]} of point features")
    if keep is not None and keep < 1:
        raise ConfigError(f"keep is {keep}: 1 feature a label is the least")
    truth = sparse.csr_array((np.ones(relevance.nnz, np.float32), relevance.indices, relevance.indptr), relevance.shape)
    truth.data[relevance.data == 0] = 0
    truth.eliminate_zeros()
    if isinstance(points, np.ndarray):
        return _dense_pifa(truth, points)
    return _sparse_pifa(truth, unit_rows(points), keep)


def cooccurrence(relevance: Sparse, keep: int | None = None) -> Features:
    """Unit rows [L, L]: how often a label stands beside others, points of many labels counting less for each."""
    return pifa(relevance, sparse.csr_array(relevance).astype(bool).astype(np.float32), keep)


def with_fallback(features: Dense | Sparse, fallback: Dense | Sparse) -> Features:
    """Unit rows of `features` [L, V], and of `fallback` [L, V] where these are zeros: label texts for unseen labels.

    Rows that are zeros in both stay so: clustering uses such labels to fill up.
    """
    if features.shape != fallback.shape or isinstance(features, np.ndarray) != isinstance(fallback, np.ndarray):
        raise DataError(f"features {features.shape} and fallback {fallback.shape} must be of one kind and shape")
    features, fallback = unit_rows(features), unit_rows(fallback)
    if isinstance(features, np.ndarray):
        return np.where((features != 0).any(axis=1, keepdims=True), features, np.asarray(fallback))
    unseen = (np.diff(features.indptr) == 0).astype(features.dtype)
    return sparse.csr_array(features + sparse.diags_array(unseen) @ sparse.csr_array(fallback))


def concat(parts: Sequence[Dense | Sparse], weights: Sequence[float] | None = None) -> Features:
    """Unit rows of the parts side by side, each normalised, then times its weight (1); sparse if one of them is."""
    weights = [1.0] * len(parts) if weights is None else weights
    heights = {part.shape[0] for part in parts}
    if len(heights) != 1 or len(weights) != len(parts) or min(weights) <= 0:
        raise ConfigError(f"parts of {sorted(heights)} labels, weights {list(weights)}: one weight > 0 a part")
    scaled = [unit_rows(part) * np.float32(weight) for part, weight in zip(parts, weights, strict=True)]
    dense = [part for part in scaled if isinstance(part, np.ndarray)]
    if len(dense) == len(scaled):
        return unit_rows(np.hstack(dense))
    return unit_rows(sparse.hstack([sparse.csr_array(part) for part in scaled], format="csr"))


def _sparse_pifa(truth: sparse.csr_array, points: sparse.csr_array, keep: int | None) -> sparse.csr_array:
    by_label = truth.T.tocsr()
    products = np.append(0, np.cumsum(by_label @ np.diff(points.indptr)))
    cuts = np.searchsorted(products, np.arange(WORK, products[-1], WORK))
    blocks = np.unique(np.concatenate([[0], cuts, [by_label.shape[0]]]))
    parts = [_largest(by_label[a:b] @ points, keep) for a, b in pairwise(blocks)]
    return unit_rows(sparse.vstack(parts, format="csr"))


def _largest(rows: sparse.csr_array, keep: int | None) -> sparse.csr_array:
    """The `keep` largest values of each row, of equal ones the first columns."""
    rows.sort_indices()
    if keep is None or np.diff(rows.indptr).max(initial=0) <= keep:
        return rows
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((-rows.data, row))
    kept = np.sort(order[np.arange(rows.nnz) - rows.indptr[row] < keep])
    indptr = np.append(0, np.cumsum(np.bincount(row[kept], minlength=rows.shape[0])))
    return sparse.csr_array((rows.data[kept], rows.indices[kept], indptr), rows.shape)


def _dense_pifa(truth: sparse.csr_array, points: NDArray[np.floating]) -> NDArray[np.floating]:
    sums = np.zeros((truth.shape[1], points.shape[1]), np.float32)
    for first in range(0, len(points), ROWS):
        block = slice(first, first + ROWS)
        rows = unit_rows(np.asarray(points[block], np.float32))
        own = truth[block].tocsc()  # only labels of the block are touched
        labels = np.flatnonzero(np.diff(own.indptr))
        sums[labels] += own[:, labels].T @ rows
    return unit_rows(sums)


def _read(tokens: Tokens, rows: Ints) -> Iterator[tuple[Ints, Ints]]:
    for first in range(0, len(rows), ROWS):
        yield tokens.gather(rows[first : first + ROWS])


def _added(a: Ints, b: Ints) -> Ints:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total
