"""The threshold of soft top-k with the Laplace CDF, exact from one pass.

F(z) = e^z / 2 for z <= 0, else 1 - e^-z / 2. At the root fewer than 2k labels lie above zero and every other one
adds exactly e^(alpha t) e^(alpha s) / 2, so the row's 2k largest scores and one logsumexp of the rest decide t.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAFE_SPREAD = 600.0
"""Largest alpha (x_1 - x_m) whose exponentials, and their products, stay inside float64."""


def cdf(z: Tensor) -> Tensor:
    half = (-z.abs()).exp() / 2
    return torch.where(z > 0, 1 - half, half)


def log_cdf(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.log1p(-(-z.abs()).exp() / 2), z - torch.log(z.new_tensor(2.0)))


def solve(top: Tensor, tail: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """alpha t and the sum of f, float64 [R], for rows of more than k labels.

    `top` [R, m >= 2k] holds alpha times the row's largest scores sorted down (-inf pads a short row), `tail` [R] the
    logsumexp of alpha times the others.
    """
    k = k.double()
    lead = top[:, :1]
    x, c = top - lead, tail - lead[:, 0]
    lowest = x.masked_fill(x == -torch.inf, 0).amin(1)
    wide = lowest < -SAFE_SPREAD
    shift = _closed_form(x.masked_fill(wide[:, None], 0), c, k)
    if bool(wide.any()):
        shift[wide] = _bisect(x[wide], c[wide], k[wide])
    density = (-(x + shift[:, None]).abs()).exp().sum(1) / 2 + (shift + c).exp() / 2
    return shift - lead[:, 0], density


def _closed_form(x: Tensor, c: Tensor, k: Tensor) -> Tensor:
    """The shift of the one split j that puts x_j above zero and x_(j+1) not, for scores x with x_1 = 0."""
    none = x.new_zeros(x.shape[0], 1)
    real = x > -torch.inf
    above = torch.cat([none, torch.where(real, (-x).exp(), 0.0).cumsum(1)], 1)
    below = torch.cat([x.exp().flip(1).cumsum(1).flip(1), none], 1) + c.exp()[:, None]
    j = torch.arange(x.shape[1] + 1, dtype=x.dtype, device=x.device)
    ahead = k[:, None] - j
    root = (ahead * ahead + above * below).sqrt()
    shift = torch.where(ahead >= 0, (ahead + root) / below, above / (root - ahead)).log()
    # Of two splits equal up to rounding (a score exactly at zero) either gives the same shift: take the least violated.
    over = torch.cat([none, (-(x + shift[:, 1:])).clamp(min=0)], 1)
    under = torch.cat([(x + shift[:, :-1]).clamp(min=0), none], 1)
    violation = (over + under).nan_to_num(nan=torch.inf)
    violation[:, 1:].masked_fill_(~real, torch.inf)
    return shift.gather(1, violation.argmin(1, keepdim=True))[:, 0]


def _bisect(x: Tensor, c: Tensor, k: Tensor) -> Tensor:
    """The same root by halving, for rows whose exponentials would overflow."""
    real = x > -torch.inf
    lo = (k / (real.sum(1) + c.exp())).log()  # every label at the top score still adds up to less than k
    hi = k.log() + 1 - x.masked_fill(~real, 0).amin(1)  # the k + 1 largest alone add up to more
    for _ in range(200):
        mid = (lo + hi) / 2
        total = cdf(x + mid[:, None]).sum(1) + (mid + c).exp() / 2
        lo, hi = torch.where(total < k, mid, lo), torch.where(total < k, hi, mid)
    return (lo + hi) / 2
