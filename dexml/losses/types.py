"""What the losses take and give: positives as CSR, sums with their counts, and the collectives a label shard needs.

Letters on tensors: G gathered queries, S labels of this shard, W label shards, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor


class LossError(ValueError):
    """An input that no loss can be computed from; the message names the argument."""


KEPT, REMOVED, MASKED = 0, 1, 2
"""Roles of an entry: positive of the loss, positive left out by sampling, filtered cell (not even a negative)."""


@dataclass(frozen=True)
class Positives:
    """The entries of G queries over S label columns, sorted by row (CSR); every cell not named here is a negative."""

    indptr: Tensor
    """int64 [G+1]"""
    cols: Tensor
    """int64 [nnz], 0 <= col < S"""
    weights: Tensor
    """float [nnz], relevance r"""
    role: Tensor
    """int8 [nnz], KEPT, REMOVED or MASKED"""
    n_kept: Tensor
    """int64 [G], kept positives of the row over ALL shards"""

    def __post_init__(self) -> None:
        nnz = self.cols.numel()
        if self.indptr.dim() != 1 or self.indptr.numel() < 2:
            raise LossError(f"positives.indptr: need [G+1] with G >= 1, got shape {list(self.indptr.shape)}")
        if self.weights.numel() != nnz or self.role.numel() != nnz:
            raise LossError(
                f"positives: {nnz} cols, {self.weights.numel()} weights and {self.role.numel()} roles must agree"
            )
        if self.n_kept.numel() != self.n_rows:
            raise LossError(f"positives.n_kept: {self.n_kept.numel()} counts for {self.n_rows} rows")

    @classmethod
    def from_csr(
        cls, indptr: Any, cols: Any, weights: Any = None, role: Any = None, n_kept: Any = None, device: Any = None
    ) -> Positives:
        """From arrays or tensors. Defaults: relevance 1, every entry kept, `n_kept` counted here (so: one shard).

        A cell named twice counts once; of its roles the strictest (MASKED, REMOVED, KEPT) wins.
        """
        indptr = torch.as_tensor(indptr, device=device).long()
        cols = torch.as_tensor(cols, device=device).long()
        weights = torch.ones(cols.shape, device=device) if weights is None else torch.as_tensor(weights, device=device)
        role = torch.zeros_like(cols) if role is None else torch.as_tensor(role, device=device)
        n_rows = indptr.numel() - 1
        rows = torch.repeat_interleave(torch.arange(n_rows, device=cols.device), indptr.diff())
        if rows.numel() != cols.numel():
            raise LossError(f"positives.indptr: ends at {rows.numel()} but there are {cols.numel()} cols")
        keep = _first_of_each_cell(rows, cols, role)
        rows, cols, weights, role = rows[keep], cols[keep], weights[keep], role[keep]
        if n_kept is None:
            n_kept = torch.bincount(rows[role == KEPT], minlength=n_rows)
        indptr = torch.cat([indptr.new_zeros(1), torch.bincount(rows, minlength=n_rows).cumsum(0)])
        return cls(indptr, cols, weights, role.to(torch.int8), torch.as_tensor(n_kept, device=device).long())

    @property
    def n_rows(self) -> int:
        return self.indptr.numel() - 1

    @cached_property
    def rows(self) -> Tensor:
        """int64 [nnz], the row of each entry."""
        every = torch.arange(self.cols.numel(), device=self.cols.device)
        return torch.searchsorted(self.indptr, every, right=True) - 1

    def relevance(self, weighted: bool) -> Tensor:
        """float64 [nnz]: r of the kept entries (1 unless `weighted`), 0 elsewhere."""
        r = self.weights.double() if weighted else torch.ones_like(self.weights, dtype=torch.float64)
        return r * (self.role == KEPT)

    def validate(self, n_labels: int) -> None:
        """Raise ValueError unless some query has a kept positive, every entry lies in 0 <= col < n_labels and is named
        once (two host syncs)."""
        if not bool(self.n_kept.any()):
            raise LossError("positives: no query has a kept positive, so there is nothing to learn from")
        if self.cols.numel() == 0:
            return
        ends_ok = (self.indptr[0] == 0) & (self.indptr[-1] == self.cols.numel()) & (self.indptr.diff() >= 0).all()
        key = (self.rows * n_labels + self.cols).sort().values
        repeats = (key[1:] == key[:-1]).sum()
        known = ((self.role >= KEPT) & (self.role <= MASKED)).all()
        low, high = self.cols.aminmax()
        facts = torch.stack([ends_ok.long(), repeats, known.long(), low, high]).tolist()
        if not facts[0]:
            raise LossError(f"positives.indptr: must rise from 0 to {self.cols.numel()}, the number of cols")
        if facts[3] < 0 or facts[4] >= n_labels:
            raise LossError(
                f"positives.cols: {facts[3]}..{facts[4]} reaches outside the {n_labels} labels of this shard "
                "(columns are local: subtract the shard's first label)"
            )
        if facts[1]:
            raise LossError(f"positives.cols: {facts[1]} cells are named twice: build with Positives.from_csr")
        if not facts[2]:
            raise LossError("positives.role: only 0 (kept), 1 (removed) and 2 (masked) are known")


def _first_of_each_cell(rows: Tensor, cols: Tensor, role: Tensor) -> Tensor:
    """bool [nnz]: False at the repeats of a cell, keeping its entry of the highest role."""
    if cols.numel() == 0:
        return torch.ones_like(cols, dtype=torch.bool)
    low, high = cols.aminmax()
    key = (rows * (high - low + 1) + cols - low) * 4 + (MASKED - role.long())
    key, order = key.sort(stable=True)
    cell = key.div(4, rounding_mode="floor")
    keep = torch.ones_like(cols, dtype=torch.bool)
    keep[order[1:]] = cell[1:] != cell[:-1]
    return keep


@dataclass(frozen=True)
class LossSum:
    """A sum over rows and the number of rows of the global batch, never a mean of means."""

    total: Tensor
    count: int

    @property
    def mean(self) -> Tensor:
        return self.total / self.count


@dataclass(frozen=True)
class TiledResult(LossSum):
    """A loss with the gradients of its batch mean (total / count)."""

    grad_query: Tensor
    """[G, D], this shard's partial sum: summed over shards it is the gradient"""
    grad_label: Tensor
    """[S, D], complete"""
    stats: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TopK:
    """Settings of soft top-k: k (int, or int64 [G] for one k a row), slope alpha, CDF and threshold solver."""

    k: int | Tensor = 5
    alpha: float = 2.0
    cdf: Literal["logistic", "laplace"] = "logistic"
    solver: Literal["halley", "bisect"] = "halley"
    max_iter: int = 40
    """Passes over the labels before giving up; Halley takes at most 16 of them, the rest are bisections."""

    def __post_init__(self) -> None:
        if isinstance(self.k, int) and self.k < 1:
            raise LossError(f"topk.k: must be at least 1, got {self.k}")
        if not self.alpha > 0:
            raise LossError(f"topk.alpha: must be positive, got {self.alpha}")
        if self.cdf not in ("logistic", "laplace"):
            raise LossError(f"topk.cdf: logistic or laplace, got {self.cdf!r}")
        if self.solver not in ("halley", "bisect"):
            raise LossError(f"topk.solver: halley or bisect, got {self.solver!r}")
        if self.max_iter < 1:
            raise LossError(f"topk.max_iter: must be at least 1, got {self.max_iter}")

    def check(self, n_labels: int) -> None:
        """Raise ValueError if one k for all rows is not below the number of labels. (A row that has fewer labels than
        its own k gives no loss.)"""
        if isinstance(self.k, int) and self.k >= n_labels:
            raise LossError(f"topk.k: {self.k} of {n_labels} labels: a top-k over all of them has no threshold")

    def per_row(self, positives: Positives) -> Tensor:
        """int64 [G]. A row without kept positives has no loss, so any k does for it (its num_pos would be 0)."""
        if isinstance(self.k, int):
            return torch.full_like(positives.n_kept, self.k)
        if self.k.numel() != positives.n_rows:
            raise LossError(f"topk.k: {self.k.numel()} values for {positives.n_rows} rows")
        k = torch.where(positives.n_kept > 0, self.k.to(positives.n_kept), 1)
        if bool((k < 1).any()):
            raise LossError(f"topk.k: must be at least 1 in rows with positives, got {int(k.min())}")
        return k


class Comm(Protocol):
    """What crosses label shards; every rank calls in the same order with the same shapes."""

    def sum_(self, x: Tensor) -> Tensor:
        """All-reduce SUM in place."""

    def gather(self, x: Tensor) -> Tensor:
        """[W, *x.shape], the same on all ranks."""


class _Single:
    """One process holds all labels: nothing to exchange."""

    def sum_(self, x: Tensor) -> Tensor:
        return x

    def gather(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)


SINGLE: Comm = _Single()
