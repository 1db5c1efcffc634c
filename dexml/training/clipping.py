"""Keeping gradients in bounds: by their length, number by number, or by the lengths of the steps before.

A sparse gradient counts with its rows added up, not once for every time a row is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from dexml.config import Config
from dexml.distributed import World

KEPT, TIMES = 5, 5.0  # lengths that are remembered, and how much longer than the longest a gradient may be
GROWTH, MOST = 2.0, 1.0  # a remembered length: at most this times the longest before, and never more than this


class Clip:
    """Bounds the gradient of a step.

    Args:
        mode: `norm` shortens it to `bound`, `value` cuts each number at it, 0 leaves it; `adaptive` shortens it to 5
            times the longest of the last 5 remembered lengths, the first 5 steps never (AttentionXML, arXiv
            1811.01727).
        kept: the lengths remembered so far, changed in place: they belong into checkpoints.
    """

    def __init__(self, mode: str, bound: float, kept: list[float]) -> None:
        self.mode, self.bound, self.kept = mode, bound, kept

    @classmethod
    def of(cls, cfg: Config, kept: list[float]) -> Clip:
        return cls(cfg.clip, cfg.max_grad_norm, kept)

    def __call__(self, shared: Sequence[nn.Parameter], own: Sequence[nn.Parameter], world: World) -> float:
        """Bounds the gradients and returns their length before.

        Args:
            shared: parameters whose gradient is the same on every rank of `world`.
            own: those that this rank alone holds.
        """
        norm = gradient_norm(shared, own, world)
        if self.mode == "value" and self.bound:
            for values in _values([*shared, *own]):
                values.clamp_(-self.bound, self.bound)
            return norm
        limit = self.limit(norm) if self.mode == "adaptive" else self.bound or math.inf
        if norm > limit:
            for values in _values([*shared, *own]):
                values.mul_(limit / norm)
        return norm

    def limit(self, norm: float) -> float:
        """What a gradient of this length is shortened to; remembers it."""
        longest = max(self.kept) if len(self.kept) == KEPT else math.inf
        if math.isfinite(norm):
            self.kept.append(min(norm, GROWTH * longest, MOST))
            del self.kept[:-KEPT]
        return TIMES * longest


def gradient_norm(shared: Sequence[nn.Parameter], own: Sequence[nn.Parameter], world: World) -> float:
    """The length of the whole gradient."""
    lengths = [nn.utils.get_total_norm(list(_values(some))).double() for some in (shared, own)]
    squares = lengths[0].square()
    if own:
        squares = squares + world.sum_(lengths[1].square())
    return float(squares.sqrt())


def _values(parameters: Iterable[nn.Parameter]) -> Iterable[Tensor]:
    """The numbers of each gradient, to be changed in place; of a sparse one those of its rows."""
    for p in parameters:
        if p.grad is None:
            continue
        if not p.grad.is_sparse:
            yield p.grad
            continue
        if not p.grad.is_coalesced():
            p.grad = p.grad.coalesce()
        yield p.grad._values()
