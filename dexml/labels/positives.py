"""The relevant cells of a global batch, and the part of them that falls on this rank's label shard.

G queries of the global batch, nnz cells, pool: the labels of this step, ascending.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.data.batching import Batch, Ints, sample_kept
from dexml.losses import Positives
from dexml.losses.types import KEPT, MASKED, REMOVED


@dataclass(frozen=True)
class Cells:
    """Positives and filtered cells of a batch, the same on every rank."""

    rows: Ints
    """[nnz] place of the query in the batch, ascending"""
    labels: Ints
    """[nnz] label ids of the whole data set"""
    weights: NDArray[np.float32]
    """[nnz] relevance"""
    roles: NDArray[np.int8]
    """[nnz] KEPT, REMOVED or MASKED"""
    n_rows: int

    @property
    def kept_labels(self) -> Ints:
        """The labels of the kept positives, ascending, each once."""
        return np.unique(self.labels[self.roles == KEPT])

    def on_shard(self, pool: Ints, shard: slice, device: torch.device) -> Positives:
        """The cells whose label is in pool[shard], with columns counted from the start of the shard."""
        place = np.searchsorted(pool, self.labels)
        here = (place >= shard.start) & (place < shard.stop)
        here[here] &= pool[place[here]] == self.labels[here]
        counts = np.bincount(self.rows[here], minlength=self.n_rows)
        n_kept = np.bincount(self.rows[self.roles == KEPT], minlength=self.n_rows)
        return Positives(
            indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(counts)])).to(device),
            cols=torch.from_numpy(place[here] - shard.start).to(device),
            weights=torch.from_numpy(self.weights[here]).to(device),
            role=torch.from_numpy(self.roles[here]).to(device),
            n_kept=torch.from_numpy(n_kept).to(device),
        )


def batch_cells(relevance: csr_matrix, filters: csr_matrix | None, batch: Batch, take: int, seed: int) -> Cells:
    """The cells of a batch; `take` positives of a query are kept, 0 keeps all.

    Filtered cells are neither positive nor negative: `Dataset` has removed them from `relevance`.
    """
    cells = relevance[batch.points]
    rows = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
    roles = np.full(len(rows), KEPT, np.int8)
    if take:
        roles[~sample_kept(cells, take, seed, batch)] = REMOVED
    labels, weights = cells.indices.astype(np.int64), cells.data.astype(np.float32)
    if filters is not None:
        masked = filters[batch.points].tocoo()
        rows = np.concatenate([rows, masked.row])
        labels = np.concatenate([labels, masked.col.astype(np.int64)])
        weights = np.concatenate([weights, np.zeros(masked.nnz, np.float32)])
        roles = np.concatenate([roles, np.full(masked.nnz, MASKED, np.int8)])
        order = np.lexsort((labels, rows))
        rows, labels, weights, roles = rows[order], labels[order], weights[order], roles[order]
    return Cells(rows, labels, weights, roles, cells.shape[0])


def known_cells(relevance: csr_matrix, filters: csr_matrix | None) -> csr_matrix:
    """Cells that are never negatives, as bool: positives and filtered ones."""
    known = relevance.astype(bool)
    return known if filters is None else (known + filters.astype(bool)).tocsr()


def num_pos(relevance: csr_matrix, batch: Batch) -> Ints:
    """[G] ceil of the summed relevance of each query: `topk_K: num_pos`."""
    sums = np.asarray(relevance[batch.points].sum(axis=1)).ravel()
    return np.ceil(sums).astype(np.int64)
