"""The threshold t of logistic soft top-k: sum over labels of sigmoid(alpha (s + t)) = k, by safeguarded Halley steps.

Works on ln S(t) - ln k, where it needs 2 to 6 passes on real scores; bisection stays beside it.
Row scalars are float64; a pass over the labels is a callback, so label shards take the same iterates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dexml.losses.types import LossError

HALLEY_PASSES = 16
"""Then only bisections: rows still open by now are limited by rounding."""

Pass = Callable[[Tensor, Tensor], Tensor]
"""(active rows int64 [A], t float64 [A]) -> float64 [3, A]: S, dS/dt, d2S/dt2, summed over all shards."""


@dataclass(frozen=True)
class Root:
    t: Tensor
    """float64 [G], 0 in rows that were not asked for"""
    slope: Tensor
    """float64 [G], dS/dt at t, which is the sum of v over labels; 1 in rows that were not asked for"""
    passes: int


def bracket(top: Tensor, n_labels: Tensor, k: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """lo <= t <= hi from the row's largest 2k scores `top` [R, >= 2 max(k)], sorted down; n_labels > k, both [R].

    lo: at most j labels can be saturated, the others reach at most score j+1. hi: the top m alone already reach k.
    """
    k, n_labels = k[:, None].double(), n_labels[:, None].double()
    rank = torch.arange(top.shape[1], dtype=torch.float64, device=top.device)
    lo = -top + ((k - rank).clamp(min=0.5) / (n_labels - k)).log() / alpha
    m = rank + 1
    hi = -top + (k / (m - k).clamp(min=0.5)).log() / alpha
    usable = (m > k) & (m <= torch.minimum(2 * k, n_labels))
    return lo.masked_fill(rank >= k, -torch.inf).amax(1), hi.masked_fill(~usable, torch.inf).amin(1)


def solve(
    active: Tensor,
    ends: tuple[Tensor, Tensor],
    k: Tensor,
    one_pass: Pass,
    *,
    alpha: float,
    tol: float,
    method: Literal["halley", "bisect"] = "halley",
    max_iter: int = 40,
) -> Root:
    """Roots of rows `active` (int64 [A]) of G, with ends lo, hi [A] and k [G]; a row that meets the stop rule freezes.

    Stop: |S - k| <= tol k, or hi - lo <= 1e-7 max(1, |t|). ValueError when a row ends with |S - k| > 1e-3 k.
    """
    lo, hi = ends
    root = Root(torch.zeros_like(k, dtype=torch.float64), torch.ones_like(k, dtype=torch.float64), 0)
    miss = torch.zeros_like(root.t)
    t, passes = (lo + hi) / 2, 0
    while active.numel() and passes < max_iter:
        sums = one_pass(active, t)
        passes += 1
        want = k[active].double()
        halley = _halley(t, sums, want)
        miss[active] = (sums[0] - want).abs() / want
        root.t[active], root.slope[active] = _polished(t, sums, halley, alpha)
        still = (miss[active] > tol) & (hi - lo > 1e-7 * t.abs().clamp(min=1.0))
        lo = torch.where(sums[0] < want, torch.maximum(lo, t), lo)
        hi = torch.where(sums[0] < want, hi, torch.minimum(hi, t))
        middle = (lo + hi) / 2
        step_in = (halley >= lo) & (halley <= hi) & (method == "halley" and passes < HALLEY_PASSES)
        t = torch.where(step_in, halley, middle)
        active, lo, hi, t = active[still], lo[still], hi[still], t[still]
    _require_roots(miss, passes)
    return Root(root.t, root.slope, passes)


def _halley(t: Tensor, sums: Tensor, k: Tensor) -> Tensor:
    """The next iterate on g = ln S - ln k; NaN where S underflows, which the caller turns into a bisection."""
    g = (sums[0] / k).log()
    g1 = sums[1] / sums[0]
    g2 = sums[2] / sums[0] - g1 * g1
    return t - 2 * g * g1 / (2 * g1 * g1 - g * g2)


def _polished(t: Tensor, sums: Tensor, halley: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """A small last step costs no pass: t moves, and its slope with the second derivative, so that w still fits v."""
    step = torch.where((halley - t).abs() <= 1e-3 / alpha, halley - t, 0.0)
    return t + step, sums[1] + step * sums[2]


def _require_roots(miss: Tensor, passes: int) -> None:
    open_rows = int((miss.isnan() | (miss > 1e-3)).sum())
    if open_rows:
        raise LossError(
            f"topk: no threshold within {passes} passes for {open_rows} rows, off by {float(miss.max()):.1e} of k: "
            "raise topk_n_iter, or lower topk_alpha or the range of the scores"
        )
