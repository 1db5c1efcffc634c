"""Tiled soft top-k: -mean over K of r ln F(alpha (s_p + t)), t the threshold at which the F of all labels add up to k.

Removed positives and masked cells are outside everything. The gradient is exact at the t found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.losses import laplace, threshold
from dexml.losses.fits import sum_rows
from dexml.losses.leaders import Leaders, merge
from dexml.losses.tiles import Job, Tile, accumulator
from dexml.losses.types import KEPT


@dataclass
class TopKFit:
    sharpness: float
    """alpha: the tiles hold alpha s"""
    laplace: bool
    shift: Tensor
    """[G] alpha t"""
    coef: Tensor
    """[G] alpha w, so that w v = coef * f; 0 in rows without a loss"""
    share: Tensor
    """[nnz] r / |K| of the kept entries, else 0"""
    outside: Tensor
    rows: Tensor
    total: Tensor
    stats: dict[str, float]

    def to_gradient_(self, tile: Tile) -> None:
        row, share = self.rows[tile.index], self.share[tile.index]
        z = tile.entries().double() + self.shift[row]
        density_(tile.scores, self.shift[tile.rows], self.coef[tile.rows], self.laplace)
        pull = -share * self.sharpness * hazard(z, self.laplace)
        values = pull + self.coef[row] * density(z, self.laplace)
        tile.put(values.masked_fill(self.outside[tile.index], 0.0))

    def finish(self, job: Job) -> Tensor:
        return self.total


def fit_topk(job: Job) -> TopKFit:
    """SoftTop-k (arXiv 2310.10636). A row with no more than k labels has no threshold: loss 0, counted in the stats."""
    positives, alpha, is_laplace = job.positives, job.topk.alpha, job.topk.cdf == "laplace"
    k = job.topk.per_row(positives)
    outside = positives.role != KEPT
    scores, top, tail, n_labels = _survey(job, outside, 2 * int(k.max()))
    asked = positives.n_kept > 0
    solvable = asked & (n_labels > k)
    rows = solvable.nonzero().flatten()
    if is_laplace:
        root = _root_laplace(job, rows, top, tail, k)
    else:
        root = _root_logistic(job, rows, top, n_labels, k, outside)
    live = solvable[positives.rows]
    share = positives.relevance(job.weighted) * live / positives.n_kept.clamp(min=1)[positives.rows]
    shift = alpha * root.t
    z = scores + shift[positives.rows]
    loss = -(share * log_cdf(z, is_laplace)).sum() + (scores * 0).sum()
    facts = job.comm.sum_(torch.cat([sum_rows(job, -share * alpha * hazard(z, is_laplace)), loss[None]]))
    job.require_finite(facts)
    # k leaders far ahead of the rest leave v = 0 to rounding: then w v is 0, not 0 / 0
    floor = torch.finfo(accumulator(job.query.dtype)).tiny ** 0.8
    coef = -alpha * facts[:-1] / root.slope.clamp(min=floor)
    stats = {"unsolvable_rows": float((asked & ~solvable).sum()), "passes": float(root.passes)}
    return TopKFit(alpha, is_laplace, shift, coef, share, outside, positives.rows, facts[-1], stats)


def _survey(job: Job, outside: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One pass and ONE gather: alpha times the entries' scores [nnz], the row's m largest [G, m], the LSE of the others
    [G] (Laplace), and the number of labels [G] not `outside`, all over all shards."""
    n_rows, device = job.positives.n_rows, job.query.device
    leaders = Leaders(n_rows, m, device, tail=job.topk.cdf == "laplace")
    scores = torch.zeros(outside.shape, dtype=torch.float64, device=device)
    for tile in job.scan(job.topk.alpha):
        scores.index_copy_(0, tile.index, tile.hide(outside).double())
        leaders.update_(tile.rows, tile.scores)
    here = job.label.shape[0] - sum_rows(job, outside.double()) + job.poison
    shards = job.comm.gather(torch.cat([leaders.top, leaders.tail[:, None], here[:, None]], 1))
    top, tail = merge(shards[:, :, :m], shards[:, :, m])
    n_labels = shards[:, :, m + 1].sum(0)
    real = torch.arange(m, device=device) < n_labels[:, None]
    job.require_finite(torch.cat([n_labels, torch.where(real, top, 0.0).sum(1)]))
    job.require_finite(tail, or_empty=True)
    return scores, top, tail, n_labels


def _root_laplace(job: Job, rows: Tensor, top: Tensor, tail: Tensor, k: Tensor) -> threshold.Root:
    alpha = job.topk.alpha
    shift, density_sum = laplace.solve(top[rows], tail[rows], k[rows])
    t, slope = torch.zeros_like(tail), torch.ones_like(tail)
    t[rows], slope[rows] = shift / alpha, alpha * density_sum
    return threshold.Root(t, slope, 1)


def _root_logistic(job: Job, rows: Tensor, top: Tensor, n_labels: Tensor, k: Tensor, outside: Tensor) -> threshold.Root:
    alpha = job.topk.alpha
    ends = threshold.bracket(top[rows] / alpha, n_labels[rows], k[rows], alpha)
    where = job.positives.rows[outside], job.positives.cols[outside]
    tol = 1e-12 if job.query.dtype == torch.float64 else 1e-5
    return threshold.solve(
        rows, ends, k, lambda active, t: _sigmoid_sums(job, active, t, where),
        alpha=alpha, tol=tol, method=job.topk.solver, max_iter=job.topk.max_iter,
    )  # fmt: skip


def _sigmoid_sums(job: Job, active: Tensor, t: Tensor, outside: tuple[Tensor, Tensor]) -> Tensor:
    """float64 [3, A]: S and its first two derivatives in t for the active rows, over all shards (one sum)."""
    alpha, n_active = job.topk.alpha, active.numel()
    place = torch.full_like(job.positives.n_kept, -1)
    place[active] = torch.arange(n_active, device=active.device)
    row, cols = place[outside[0]], outside[1]
    plan = job.plan_for(row[row >= 0], cols[row >= 0], n_active)
    shift = (alpha * t).to(accumulator(job.query.dtype))
    sums = torch.zeros((3, n_active), dtype=torch.float64, device=t.device)
    for tile in plan.scan(job.query[active], job.label, alpha / job.tau):
        tile.scores.view(-1).index_fill_(0, tile.flat, -torch.inf)
        p = tile.scores.add_(shift[tile.rows, None]).sigmoid_()
        v = torch.addcmul(p, p, p, value=-1, out=tile.scratch)
        sums[0, tile.rows] += p.sum(1)
        v_sum = v.sum(1)
        sums[1, tile.rows] += alpha * v_sum
        sums[2, tile.rows] += alpha * alpha * (v_sum - 2 * p.mul_(v).sum(1))
    return job.comm.sum_(sums)


def density_(tile: Tensor, shift: Tensor, coef: Tensor, is_laplace: bool) -> None:
    """alpha s -> coef * f(alpha s + shift), in place."""
    shift, coef = shift.to(tile.dtype)[:, None], coef.to(tile.dtype)[:, None]
    if is_laplace:
        tile.add_(shift).abs_().neg_().exp_().mul_(coef / 2)
    else:
        tile.add_(shift).sigmoid_()
        tile.addcmul_(tile, tile, value=-1).mul_(coef)


def density(z: Tensor, is_laplace: bool) -> Tensor:
    if is_laplace:
        return (-z.abs()).exp() / 2
    p = torch.sigmoid(z)
    return p * torch.sigmoid(-z)


def hazard(z: Tensor, is_laplace: bool) -> Tensor:
    """f(z) / F(z)"""
    if is_laplace:
        e = (-z.abs()).exp()
        return torch.where(z > 0, e / (2 - e), 1.0)
    return torch.sigmoid(-z)


def log_cdf(z: Tensor, is_laplace: bool) -> Tensor:
    return laplace.log_cdf(z) if is_laplace else F.logsigmoid(z)
