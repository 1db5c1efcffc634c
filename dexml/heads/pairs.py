"""The one product that splitting needs: rows of label features against the two centres of their node.

Rows of a call are sorted by node. Nothing is stored for a node that none of its rows needs, so thousands of small
nodes cost what one large node costs. No BLAS: every sum has one order, whatever the number of threads.

n rows of a call, N nodes, V columns of the features.
"""

from __future__ import annotations

from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.files import DataError

Ints = NDArray[np.int64]
Dense = NDArray[Any]
Sparse = sparse.csr_array | sparse.csr_matrix
Features = Dense | sparse.csr_array
"""Rows of length 1 or 0, as `unit_rows` makes them."""
BLOCK = 4096  # rows whose centres are gathered at a time


class Pairs(Protocol):
    def similarities(self, side: NDArray[np.int8]) -> NDArray[np.floating]:
        """[n, 2] of every row with the normalised sums of its node's rows of side 0, and of side 1.

        side: [n], -1 for a row that belongs to neither.
        """


def checked(features: Dense | Sparse) -> Features:
    """Rows of length 1 or 0, as float32 or float64; DataError for no rows or a value that is not finite."""
    if len(features.shape) != 2 or features.shape[0] == 0:
        raise DataError(f"label features of shape {features.shape}: they need a row for each of one or more labels")
    values = features if isinstance(features, np.ndarray) else features.data
    if not np.isfinite(values).all():
        row = _first_bad_row(features)
        raise DataError(f"label features: row {row} holds nan or infinity: mend the features of label {row}")
    return unit_rows(features)


@overload
def unit_rows(features: Dense) -> Dense: ...
@overload
def unit_rows(features: Sparse) -> sparse.csr_array: ...
def unit_rows(features: Dense | Sparse) -> Features:
    """Rows divided by their length (rows of zeros stay), a dense array or canonical CSR; integers become float32."""
    kind = features.dtype if features.dtype in (np.float32, np.float64) else np.dtype(np.float32)
    if isinstance(features, np.ndarray):
        dense = np.asarray(features, kind)
        return dense / _positive(np.sqrt(np.einsum("nd,nd->n", dense, dense)))[:, None]
    rows = sparse.csr_array(features, copy=True).astype(kind)
    rows.sum_duplicates()
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    rows.data /= np.repeat(_positive(lengths), np.diff(rows.indptr))
    return rows


def pairs_of(features: Features, rows: Ints, node: Ints, n_nodes: int) -> Pairs:
    """The product for these rows [n] of features, whose node numbers [n] ascend and are below `n_nodes`."""
    if isinstance(features, np.ndarray):
        return DensePairs(features, rows, node, n_nodes)
    return SparsePairs(features, rows, node, n_nodes)


class DensePairs:
    """Memory: 2 N centres beside blocks of rows."""

    def __init__(self, features: Dense, rows: Ints, node: Ints, n_nodes: int) -> None:
        self._features, self._rows, self._node, self._n_nodes = features, rows, node, n_nodes

    def similarities(self, side: NDArray[np.int8]) -> NDArray[np.floating]:
        centres = self._centres(side)
        found = np.empty((len(self._rows), 2), centres.dtype)
        for first in range(0, len(found), BLOCK):
            block = slice(first, first + BLOCK)
            rows, node = self._features[self._rows[block]], self._node[block]
            for which in (0, 1):
                found[block, which] = np.einsum("nd,nd->n", rows, centres[node, which])
        return found

    def _centres(self, side: NDArray[np.int8]) -> NDArray[np.floating]:
        """[N, 2, D]"""
        chosen = np.flatnonzero(side >= 0)
        groups = 2 * self._node[chosen] + side[chosen]
        ones = np.ones(len(chosen), self._features.dtype)
        shape = (2 * self._n_nodes, len(self._features))
        sums: Dense = sparse.csr_array((ones, (groups, self._rows[chosen])), shape=shape) @ self._features
        return unit_rows(sums).reshape(self._n_nodes, 2, -1)


class SparsePairs:
    """Each node has columns of its own, those that its rows use: two centres are two values per such slot.

    Memory: two copies of the rows.
    """

    def __init__(self, features: sparse.csr_array, rows: Ints, node: Ints, n_nodes: int) -> None:
        by_column = features[rows].tocsc()  # within a column rows ascend, so those of a node stand together
        of_row = node.astype(np.int32)[by_column.indices]
        begins = np.diff(of_row, prepend=np.int32(-1)) != 0
        begins[by_column.indptr[:-1][np.diff(by_column.indptr) > 0]] = True
        starts = np.flatnonzero(begins)
        indptr = np.append(starts, by_column.nnz)
        self._slots = sparse.csc_array((by_column.data, by_column.indices, indptr), shape=(len(rows), len(starts)))
        self._node, self._n_nodes = of_row[starts], n_nodes

    def similarities(self, side: NDArray[np.int8]) -> NDArray[np.floating]:
        chosen = (side[:, None] == np.array([0, 1])).astype(self._slots.dtype)
        sums = self._slots.T @ chosen  # [slots, 2]
        squares = np.stack([np.bincount(self._node, sums[:, i] ** 2, self._n_nodes) for i in (0, 1)], axis=1)
        lengths = _positive(np.sqrt(squares)).astype(sums.dtype)
        return self._slots @ (sums / lengths[self._node])


def _positive(lengths: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.where(lengths > 0, lengths, 1)


def _first_bad_row(features: Dense | Sparse) -> int:
    if isinstance(features, np.ndarray):
        return int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
    entry = np.flatnonzero(~np.isfinite(features.data))[0]
    return int(np.searchsorted(features.indptr, entry, side="right")) - 1
