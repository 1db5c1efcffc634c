"""Score tiles: [R, C] pieces of query @ label.T in one buffer, with the entries that fall into each piece.

Entries are sorted by tile once; a pass then visits the tiles without a host sync and never holds [G, S].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dexml.losses.types import SINGLE, Comm, LossError, Positives, TopK
from dexml.products import onednn, product

AUTO_CELLS = 1 << 22
"""Cells of a tile when `tile_rows` is 0: 16 MB of float32, where matrix products run at full speed on two cores."""

MM_TO_FLOAT32 = "dtype_out" in torch.ops.aten.mm.overloads()
"""torch >= 2.8 on CUDA: half-precision products that stay float32."""


@dataclass
class Tile:
    """Scores of queries `rows` against labels `cols`; `index` names the entries inside, `flat` their cells."""

    scores: Tensor
    scratch: Tensor
    rows: slice
    cols: slice
    index: Tensor
    flat: Tensor
    log_weights: Tensor | None
    """[n] what the scores at the entries were raised by, as if they were negatives"""
    regular: bool
    """One of many of this width, for whose products a library may keep a kernel."""

    def entries(self) -> Tensor:
        """[n] scores at the entries, a copy."""
        scores = self.scores.view(-1).index_select(0, self.flat)
        return scores if self.log_weights is None else scores - self.log_weights[self.index]

    def put(self, values: Tensor) -> None:
        self.scores.view(-1).index_copy_(0, self.flat, values.to(self.scores.dtype))

    def hide(self, hidden: Tensor) -> Tensor:
        """Write -inf where `hidden` (bool [nnz], over all entries) is set; returns the scores that were there."""
        before = self.entries()
        if self.index.numel():
            self.put(before.masked_fill(hidden[self.index], -torch.inf))
        return before


class LogWeights(NamedTuple):
    labels: Tensor
    """[S]"""
    entries: Tensor
    """[nnz] the same at the label of each entry"""


@dataclass(frozen=True)
class Plan:
    """A grid of tiles over [n_rows, n_cols] and the entries of each; `bounds` cuts `order` and `flat` tile by tile."""

    n_rows: int
    n_cols: int
    row_step: int
    col_step: int
    order: Tensor
    flat: Tensor
    bounds: list[int]

    @classmethod
    def build(cls, rows: Tensor, cols: Tensor, n_rows: int, n_cols: int, row_step: int, col_step: int) -> Plan:
        grid_rows = -(-n_rows // row_step)
        n_tiles = grid_rows * -(-n_cols // col_step)
        key = cols.div(col_step, rounding_mode="floor") * grid_rows + rows.div(row_step, rounding_mode="floor")
        key, order = key.sort(stable=True)
        left = cols - cols % col_step
        width = (n_cols - left).clamp(max=col_step)
        flat = (rows % row_step * width + cols - left)[order]
        bounds = torch.searchsorted(key, torch.arange(n_tiles + 1, device=key.device)).tolist()
        return cls(n_rows, n_cols, row_step, col_step, order, flat, bounds)

    def scan(self, query: Tensor, label: Tensor, scale: float, log_weights: LogWeights | None = None) -> Iterator[Tile]:
        """Every tile of scale * query @ label.T + ln weight, columns outermost. The next one overwrites a tile."""
        shape = min(self.row_step, self.n_rows) * min(self.col_step, self.n_cols)
        buffers = query.new_empty((2, shape), dtype=accumulator(query.dtype))
        cuts = iter(zip(self.bounds, self.bounds[1:], strict=False))
        for left in range(0, self.n_cols, self.col_step):
            cols = slice(left, min(left + self.col_step, self.n_cols))
            for top in range(0, self.n_rows, self.row_step):
                rows = slice(top, min(top + self.row_step, self.n_rows))
                size = (rows.stop - top, cols.stop - left)
                scores, scratch = buffers[:, : size[0] * size[1]].view(2, *size)
                regular = size[1] == self.col_step < self.n_cols
                scores_into(scores, query[rows], label[cols].to(query.dtype), scale, regular)
                if log_weights is not None:
                    scores += log_weights.labels[cols]
                first, last = next(cuts)
                raised = None if log_weights is None else log_weights.entries
                index, flat = self.order[first:last], self.flat[first:last]
                yield Tile(scores, scratch, rows, cols, index, flat, raised, regular)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Scores and gradients are float32 whatever goes in, except that float64 stays."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def scores_into(out: Tensor, query: Tensor, label: Tensor, scale: float, regular: bool) -> None:
    """out = scale * query @ label.T. In half precision the products accumulate in float32."""
    if regular and onednn(query):
        out.copy_(product(query * scale, label.T))
    elif query.dtype == out.dtype:
        out.addmm_(query, label.T, beta=0, alpha=scale)
    elif query.is_cuda and MM_TO_FLOAT32:
        torch.mm(query, label.T, out_dtype=out.dtype, out=out)
        out.mul_(scale)
    else:  # these kernels round the float32 sums to the input type
        out.copy_(query @ label.T).mul_(scale)


def accumulate_(acc: Tensor, left: Tensor, right: Tensor, scale: float, regular: bool) -> None:
    """acc += scale * left @ right, with `acc` and `left` in the accumulator type, `right` as the embeddings are."""
    if regular and onednn(right):
        acc.add_(product(left, right), alpha=scale)
    elif right.dtype == acc.dtype:
        acc.addmm_(left, right, alpha=scale)
    elif right.is_cuda and MM_TO_FLOAT32:
        acc.add_(torch.mm(left.to(right.dtype), right, out_dtype=acc.dtype), alpha=scale)
    else:
        acc.add_(left.to(right.dtype) @ right, alpha=scale)


@dataclass(frozen=True)
class Job:
    """One call of `tiled`: checked inputs, and the scans over them that the criteria ask for."""

    query: Tensor
    label: Tensor
    positives: Positives
    tau: float
    tile_rows: int = 0
    tile_cols: int = 8192
    comm: Comm = SINGLE
    n_labels_total: int | None = None
    weighted: bool = False
    topk: TopK = field(default_factory=TopK)
    log_weights: Tensor | None = None

    @cached_property
    def plan(self) -> Plan:
        return self.plan_for(self.positives.rows, self.positives.cols, self.query.shape[0])

    def plan_for(self, rows: Tensor, cols: Tensor, n_rows: int) -> Plan:
        tile_cols = max(1, min(self.tile_cols, self.label.shape[0]))
        tile_rows = self.tile_rows or max(64, AUTO_CELLS // tile_cols)
        return Plan.build(rows, cols, n_rows, self.label.shape[0], tile_rows, tile_cols)

    def scan(self, sharpness: float = 1.0) -> Iterator[Tile]:
        """Tiles of sharpness * scores over all rows."""
        weights = self.log_weights
        pair = None if weights is None else LogWeights(weights, weights[self.positives.cols])
        return self.plan.scan(self.query, self.label, sharpness / self.tau, pair)

    @cached_property
    def poison(self) -> Tensor:
        """0, or NaN if an input is not finite: added to what shards exchange, it makes all of them raise together."""
        ends = [torch.stack(x.aminmax()).double() for x in (self.query, self.label) if x.numel()]
        return (torch.cat(ends) * 0).sum()

    def require_finite(self, facts: Tensor, or_empty: bool = False) -> None:
        """Raise unless `facts`, equal on all shards, are finite (or -inf, the log of an empty sum, with `or_empty`)."""
        if bool((torch.isfinite(facts) | ((facts == -torch.inf) & or_empty)).all()):
            return
        for name, x in (("query_GD", self.query), ("label_SD", self.label)):
            bad = (~torch.isfinite(x)).any(1).nonzero().flatten()
            if bad.numel():
                raise LossError(f"{name}: {bad.numel()} rows hold NaN or infinity, the first is row {int(bad[0])}")
        raise LossError(
            "scores: NaN or infinite although the embeddings of this shard are finite: either another shard's are not, "
            f"or query_GD @ label_SD.T / tau overflows (tau = {self.tau})"
        )
