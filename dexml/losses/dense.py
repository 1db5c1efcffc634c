"""The losses in plain autograd on a dense score matrix: the twin of the tiled form, fit for small label sets.

sim_GS [G, S] holds scores already divided by tau and is left as it was. Formulas and names: docs/losses.md.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.losses.types import KEPT, MASKED, LossError, LossSum, Positives, TopK


def softmax(
    sim_GS: Tensor, positives: Positives, *, weighted: bool = False, log_weights: Tensor | None = None
) -> LossSum:
    """Sum over kept p of r_p (LSE - s_p), the LSE over all labels not masked (removed positives stay in).

    log_weights [S] is added to the scores of the negatives.
    """
    sim = _scores(sim_GS, positives)
    log_z = _logsumexp(_raised(sim, positives, log_weights), _cells(sim, positives, positives.role == MASKED))
    r = positives.relevance(weighted).to(sim.dtype)
    terms = r * (log_z[positives.rows] - sim[positives.rows, positives.cols])
    return _sum(sim, terms[positives.role == KEPT])


def bce(sim_GS: Tensor, positives: Positives) -> LossSum:
    """(1/S) (sum of softplus(s) - sum over kept of s_p); removed and masked cells leave the sum, not the divisor."""
    sim = _scores(sim_GS, positives)
    outside = _cells(sim, positives, positives.role != KEPT)
    kept = positives.role == KEPT
    live = (positives.n_kept > 0)[:, None]
    softplus = torch.logaddexp(sim, torch.zeros_like(sim))
    hits = sim[positives.rows[kept], positives.cols[kept]]
    return _sum(sim, torch.cat([softplus[~outside & live], -hits]) / sim.shape[1])


def decoupled_softmax(
    sim_GS: Tensor, positives: Positives, *, weighted: bool = False, log_weights: Tensor | None = None
) -> LossSum:
    """Mean over kept p of r_p softplus(N - s_p), N the LSE over the labels that are not entries.

    log_weights [S] is added to the scores of the negatives.
    """
    sim = _scores(sim_GS, positives)
    entries = _cells(sim, positives, torch.ones_like(positives.role, dtype=torch.bool))
    log_z = _logsumexp(_raised(sim, positives, log_weights), entries)
    has_negatives = (~entries).any(1)[positives.rows]
    margin = log_z[positives.rows] - sim[positives.rows, positives.cols]
    terms = _share(positives, weighted).to(sim.dtype) * torch.logaddexp(margin, torch.zeros_like(margin))
    return _sum(sim, terms[(positives.role == KEPT) & has_negatives])


def soft_topk(
    sim_GS: Tensor,
    positives: Positives,
    *,
    k: int | Tensor = 5,
    alpha: float = 2.0,
    cdf: Literal["logistic", "laplace"] = "logistic",
    weighted: bool = False,
) -> LossSum:
    """-mean over kept p of r_p ln F(alpha (s_p + t)), t from sum of F = k over the cells not removed and not masked.

    Rows with at most k such cells contribute 0. The gradient through t is the implicit one, exact at the root.
    """
    sim = _scores(sim_GS, positives)
    settings = TopK(k, alpha, cdf)
    settings.check(sim.shape[1])
    want = settings.per_row(positives)
    outside = _cells(sim, positives, positives.role != KEPT)
    live = (positives.n_kept > 0) & ((~outside).sum(1) > want)
    t = _threshold(sim, outside, want.to(sim.dtype), alpha, cdf)[:, None]
    z = alpha * (sim + t)
    # One Newton step at the root leaves t as it is and carries its derivative -v / sum(v).
    summed = torch.where(outside, 0.0, _cdf(z, cdf)).sum(1, keepdim=True)
    slope = alpha * torch.where(outside, 0.0, _density(z.detach(), cdf)).sum(1, keepdim=True)
    slope = slope.clamp(min=torch.finfo(sim.dtype).tiny ** 0.8)  # a row whose k leaders are far ahead of the rest
    z = z - alpha * (summed - summed.detach()) / slope
    terms = -_share(positives, weighted).to(sim.dtype) * _log_cdf(z[positives.rows, positives.cols], cdf)
    return _sum(sim, terms[(positives.role == KEPT) & live[positives.rows]])


def _scores(sim: Tensor, positives: Positives) -> Tensor:
    """float32 or float64, checked against the positives."""
    if sim.dim() != 2 or sim.shape[0] != positives.n_rows:
        raise LossError(f"sim_GS: need [{positives.n_rows}, S], got {list(sim.shape)}")
    if not bool(torch.isfinite(sim).all()):
        raise LossError(f"sim_GS: {int((~torch.isfinite(sim)).sum())} scores are NaN or infinite")
    positives.validate(sim.shape[1])
    return sim if sim.dtype == torch.float64 else sim.float()


def _cells(sim: Tensor, positives: Positives, chosen: Tensor) -> Tensor:
    """bool [G, S], True at the chosen entries."""
    cells = torch.zeros(sim.shape, dtype=torch.bool, device=sim.device)
    cells[positives.rows[chosen], positives.cols[chosen]] = True
    return cells


def _raised(sim: Tensor, positives: Positives, log_weights: Tensor | None) -> Tensor:
    if log_weights is None:
        return sim
    every = torch.ones_like(positives.role, dtype=torch.bool)
    return torch.where(_cells(sim, positives, every), sim, sim + log_weights.to(sim.dtype))


def _logsumexp(sim: Tensor, hidden: Tensor) -> Tensor:
    """[G] over the cells not hidden; a row with all hidden gives 0 (never used) since its gradient would be NaN."""
    empty = hidden.all(1, keepdim=True)
    return torch.where(empty, 0.0, sim.masked_fill(hidden & ~empty, -math.inf)).logsumexp(1)


def _share(positives: Positives, weighted: bool) -> Tensor:
    """[nnz] r / |K| at kept entries, else 0."""
    return positives.relevance(weighted) / positives.n_kept.clamp(min=1)[positives.rows]


def _sum(sim: Tensor, terms: Tensor) -> LossSum:
    return LossSum(terms.sum() + 0.0 * sim.sum(), sim.shape[0])


def _cdf(z: Tensor, cdf: str) -> Tensor:
    if cdf == "logistic":
        return torch.sigmoid(z)
    half = (-z.abs()).exp() / 2
    return torch.where(z > 0, 1 - half, half)


def _log_cdf(z: Tensor, cdf: str) -> Tensor:
    if cdf == "logistic":
        return F.logsigmoid(z)
    return torch.where(z > 0, torch.log1p(-(-z.abs()).exp() / 2), z.clamp(max=0) - math.log(2))


def _density(z: Tensor, cdf: str) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z) if cdf == "logistic" else (-z.abs()).exp() / 2


@torch.no_grad()
def _threshold(sim: Tensor, outside: Tensor, k: Tensor, alpha: float, cdf: str) -> Tensor:
    """[G] by 100 halvings in float64; 0 in rows without a root."""
    s = sim.double()
    n = (~outside).sum(1)
    share = (k / n.clamp(min=1)).clamp(max=0.5 + 0.5 * (1 - 1e-9))
    quantile = torch.logit(share.double()) / alpha + torch.zeros_like(s[:, 0])
    span = 2 * math.log(2) / alpha  # the Laplace quantile lies this close to the logistic one, or nearer zero
    lo = quantile - span - s.masked_fill(outside, -math.inf).amax(1)
    hi = quantile + span - s.masked_fill(outside, math.inf).amin(1)
    for _ in range(100):
        mid = (lo + hi) / 2
        low = torch.where(outside, 0.0, _cdf(alpha * (s + mid[:, None]), cdf)).sum(1) < k
        lo, hi = torch.where(low, mid, lo), torch.where(low, hi, mid)
    return torch.where(n > k, (lo + hi) / 2, 0.0).to(sim.dtype)
