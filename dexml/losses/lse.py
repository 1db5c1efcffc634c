"""Row-wise log of a sum of exponentials, fed tile by tile and merged across label shards."""

from __future__ import annotations

import torch
from torch import Tensor


class OnlineLSE:
    """Running maximum m and scaled sum a of each row: the value is m + ln a, -inf for a row that saw nothing."""

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self.m = torch.full((n_rows,), -torch.inf, dtype=torch.float64, device=device)
        self.a = torch.zeros((n_rows,), dtype=torch.float64, device=device)

    def update_(self, rows: slice, tile: Tensor) -> None:
        """Take in tile [R, C]; its content is destroyed. Sums of a tile in its own type, across tiles in float64."""
        old = self.m[rows].clone()
        top = torch.maximum(old, tile.amax(1))
        # exp(-inf - 0) = 0 keeps a row that has seen only masked cells at a = 0
        base = torch.where(top == -torch.inf, 0.0, top)
        sums = tile.sub_(base.to(tile.dtype)[:, None]).exp_().sum(1)
        self.a[rows] = self.a[rows] * (old - base).exp() + sums
        self.m[rows] = top

    @property
    def value(self) -> Tensor:
        """float64 [G]"""
        return torch.where(self.a > 0, self.m + self.a.log(), self.m)
