"""The tiled criteria whose gradient is a row weight times exp(score - normaliser), or a sigmoid.

A criterion is a function Job -> Fit: it makes the passes that come before the gradient. The gradient pass then hands
every tile of scores to `Fit.to_gradient_`, which turns it in place into d(row loss)/d(score). Formulas: docs/losses.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dexml.losses.lse import OnlineLSE
from dexml.losses.tiles import Job, Tile
from dexml.losses.types import KEPT, MASKED, REMOVED


class Fit(Protocol):
    """What is known of each row before the gradient pass."""

    sharpness: float
    """The tiles of the gradient pass hold sharpness * scores."""
    stats: dict[str, float]

    def to_gradient_(self, tile: Tile) -> None:
        """Scores to d(row loss)/d(score), in place."""

    def finish(self, job: Job) -> Tensor:
        """float64 scalar, the loss summed over rows and shards; called once, after the last tile."""


Loss = Callable[[Job], Fit]


def sum_rows(job: Job, values: Tensor) -> Tensor:
    """float64 [G]: entry values added up by row."""
    return torch.zeros(job.positives.n_rows, dtype=torch.float64, device=values.device).index_add_(
        0, job.positives.rows, values
    )


def normaliser(job: Job, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """One pass: this shard's logsumexp [G] over the cells not `hidden`, and the entries' scores [nnz]; float64."""
    lse = OnlineLSE(job.positives.n_rows, job.query.device)
    scores = hidden.new_zeros(hidden.shape, dtype=torch.float64)
    for tile in job.scan():
        scores.index_copy_(0, tile.index, tile.hide(hidden).double())
        lse.update_(tile.rows, tile.scores)
    return lse.value, scores


def exp_rows_(tile: Tile, shift: Tensor) -> None:
    """scores -> exp(scores - shift of the row); shift +inf makes a row of zeros."""
    tile.scores.sub_(shift[tile.rows].to(tile.scores.dtype)[:, None]).exp_()


def log_weighted(log_z: Tensor, weight: Tensor) -> Tensor:
    """The shift that makes exp(s - shift) = weight * exp(s - log_z), with no inf - inf in rows of weight 0."""
    return torch.where(weight > 0, log_z - weight.log(), torch.inf)


@dataclass
class DecoupledFit:
    log_z: Tensor
    shift: Tensor
    share: Tensor
    """[nnz] r / |K| of the kept entries, else 0"""
    rows: Tensor
    total: Tensor
    sharpness: float = 1.0
    stats: dict[str, float] = field(default_factory=dict)

    def to_gradient_(self, tile: Tile) -> None:
        scores = tile.entries().double()
        exp_rows_(tile, self.shift)
        log_z = self.log_z[self.rows[tile.index]]
        tile.put(-self.share[tile.index] * torch.sigmoid(log_z - scores))

    def finish(self, job: Job) -> Tensor:
        return self.total


def fit_decoupled(job: Job) -> DecoupledFit:
    """DecoupledSoftmax (arXiv 2310.10636): each kept positive against the negatives only."""
    positives = job.positives
    local, scores = normaliser(job, torch.ones_like(positives.cols, dtype=torch.bool))
    log_z = torch.logsumexp(job.comm.gather(local + job.poison), 0)
    job.require_finite(log_z, or_empty=True)
    margin = log_z[positives.rows] - scores
    share = positives.relevance(job.weighted) / positives.n_kept.clamp(min=1)[positives.rows]
    loss = (share * torch.logaddexp(margin, torch.zeros_like(margin))).sum() + (scores * 0).sum()
    facts = job.comm.sum_(torch.cat([sum_rows(job, share * torch.sigmoid(margin)), loss[None]]))
    job.require_finite(facts)
    return DecoupledFit(log_z, log_weighted(log_z, facts[:-1]), share, positives.rows, facts[-1])


@dataclass
class SoftmaxFit:
    shift: Tensor
    relevance: Tensor
    masked: Tensor
    rows: Tensor
    total: Tensor
    sharpness: float = 1.0
    stats: dict[str, float] = field(default_factory=dict)

    def to_gradient_(self, tile: Tile) -> None:
        scores = tile.entries().double()
        exp_rows_(tile, self.shift)
        values = (scores - self.shift[self.rows[tile.index]]).exp() - self.relevance[tile.index]
        tile.put(values.masked_fill(self.masked[tile.index], 0.0))

    def finish(self, job: Job) -> Tensor:
        return self.total


def fit_softmax(job: Job) -> SoftmaxFit:
    """Softmax over all labels, summed over the kept positives; removed positives stay in the denominator."""
    positives = job.positives
    masked = positives.role == MASKED
    local, scores = normaliser(job, masked)
    relevance = positives.relevance(job.weighted)
    weighted_scores = sum_rows(job, relevance * scores) + (scores * 0).sum()
    shards = job.comm.gather(torch.stack([local + job.poison, sum_rows(job, relevance), weighted_scores]))
    log_z, weight, hits = torch.logsumexp(shards[:, 0], 0), shards[:, 1].sum(0), shards[:, 2].sum(0)
    job.require_finite(torch.cat([log_z, hits]), or_empty=True)
    total = torch.where(weight > 0, weight * log_z - hits, 0.0).sum()
    return SoftmaxFit(log_weighted(log_z, weight), relevance, masked, positives.rows, total)


@dataclass
class BceFit:
    """One pass: the value is gathered while the gradient is made."""

    scale: Tensor
    """[G] 1 / L, or 0 in rows without kept positives"""
    hidden: Tensor
    kept: Tensor
    """[nnz] 1 at kept entries, else 0"""
    rows: Tensor
    total: Tensor
    sharpness: float = 1.0
    stats: dict[str, float] = field(default_factory=dict)

    def to_gradient_(self, tile: Tile) -> None:
        scores = tile.hide(self.hidden).double()
        scale, row_scale = self.scale[tile.rows], self.scale[self.rows[tile.index]]
        torch.logaddexp(tile.scores, tile.scores.new_zeros(()), out=tile.scratch)
        hits = row_scale * self.kept[tile.index] * scores
        self.total += (scale * tile.scratch.sum(1)).sum() - hits.sum() + (scores * 0).sum()
        tile.scores.sigmoid_().mul_(scale.to(tile.scores.dtype)[:, None])
        values = row_scale * (torch.sigmoid(scores) - self.kept[tile.index])
        tile.put(values.masked_fill(self.hidden[tile.index], 0.0))

    def finish(self, job: Job) -> Tensor:
        total = job.comm.sum_(self.total[None] + job.poison)
        job.require_finite(total)
        return total[0]


def fit_bce(job: Job) -> BceFit:
    """Binary cross entropy, mean over the L labels; removed positives and masked cells leave the sum but not L."""
    positives = job.positives
    hidden = (positives.role == REMOVED) | (positives.role == MASKED)
    n_labels = job.n_labels_total if job.n_labels_total is not None else job.label.shape[0]
    scale = (positives.n_kept > 0).double() / max(n_labels, 1)
    kept = (positives.role == KEPT).double()
    zero = torch.zeros((), dtype=torch.float64, device=job.query.device)
    return BceFit(scale, hidden, kept, positives.rows, zero)
