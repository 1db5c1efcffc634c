"""The largest scores of each row, found tile by tile, and the logsumexp of all others."""

from __future__ import annotations

import torch
from torch import Tensor

from dexml.losses.lse import OnlineLSE

GROUP = 16


def top_cells(tile: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the m largest cells of each row of tile [R, C], in no order; all cells when m >= C.

    Exact: the m largest cells lie in the m groups with the largest maxima, so only those groups are ranked.
    """
    n_cols = tile.shape[1]
    stride = n_cols // GROUP
    if stride < 4 * m:
        return torch.topk(tile, min(m, n_cols), dim=1, sorted=False)
    body = stride * GROUP
    groups = tile[:, :body].unflatten(1, (GROUP, stride)).amax(1).topk(m, sorted=False).indices
    offsets = torch.arange(GROUP, device=tile.device) * stride
    rest = torch.arange(body, n_cols, device=tile.device).expand(tile.shape[0], -1)
    cells = torch.cat([(groups[:, :, None] + offsets).flatten(1), rest], 1)
    values, place = tile.gather(1, cells).topk(m, sorted=False)
    return values, cells.gather(1, place)


class Leaders:
    """The m largest scores of G rows so far, float64 [G, m] sorted down, -inf pads; with `tail` the LSE of the rest."""

    def __init__(self, n_rows: int, m: int, device: torch.device, *, tail: bool) -> None:
        self.top = torch.full((n_rows, m), -torch.inf, dtype=torch.float64, device=device)
        self.rest = OnlineLSE(n_rows, device) if tail else None

    def update_(self, rows: slice, tile: Tensor) -> None:
        """Take in tile [R, C]; its content is destroyed when there is a tail."""
        m = self.top.shape[1]
        values, cells = top_cells(tile, m)
        ranked = torch.cat([self.top[rows], values.double()], 1).sort(1, descending=True).values
        self.top[rows] = ranked[:, :m]
        if self.rest is not None:
            self.rest.update_(rows, tile.scatter_(1, cells, -torch.inf))
            self.rest.update_(rows, ranked[:, m:])

    @property
    def tail(self) -> Tensor:
        """float64 [G]"""
        return torch.full_like(self.top[:, 0], -torch.inf) if self.rest is None else self.rest.value


def merge(top: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Shards' leaders [W, G, m] and tails [W, G] to the leaders [G, m] and tail [G] of all labels."""
    m = top.shape[2]
    ranked = top.transpose(0, 1).flatten(1).sort(1, descending=True).values
    return ranked[:, :m], torch.logsumexp(torch.cat([ranked[:, m:], tail.T], 1), 1)
