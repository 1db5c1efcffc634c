"""AdamW for parameters kept in bfloat16: 6 bytes a weight with both moments, instead of 12.

An update is worked out in float32 and rounded up or down by chance, in proportion to the distance: rounding to the
nearest would lose every update smaller than 1/512 of its weight, and the second moment would stand still (stochastic
rounding: Gupta et al. 2015, arXiv 1502.02551; in bfloat16 training: Zamirai et al. 2020, arXiv 2010.06192). The chance
is a hash of (update, row, column), so it is the same however the rows are spread over processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dexml.encoders.dropout import AXES, mix32_

ROWS = 4096  # worked on at a time
WEIGHT, FIRST, SECOND = 1, 2, 3  # the numbers that one update rounds


class RoundedAdamW(torch.optim.AdamW):
    """AdamW that rounds what is bfloat16 by chance.

    A group of such matrices [S, D] may name `first_row`: the place of its first row in the whole table.
    """

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        half = [(group, p) for group in self.param_groups for p in group["params"] if p.dtype == torch.bfloat16]
        gradients = [p.grad for _, p in half]
        for _, p in half:
            p.grad = None
        super().step(closure)
        for (group, p), grad in zip(half, gradients, strict=True):
            p.grad = grad
            if grad is not None:
                self._update(group, p, grad)

    @torch.no_grad()
    def _update(self, group: dict[str, Any], p: nn.Parameter, grad: Tensor) -> None:
        state = self.state[p]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        update, (beta1, beta2), lr = int(state["step"]), group["betas"], float(group["lr"])
        size = lr / (1 - beta1**update)
        for begin in range(0, len(p), ROWS):
            rows = slice(begin, begin + ROWS)
            g = grad[rows].float()
            m, v, w = (x[rows].float() for x in (state["exp_avg"], state["exp_avg_sq"], p))
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            w.mul_(1 - lr * group["weight_decay"])
            w.addcdiv_(m, (v / (1 - beta2**update)).sqrt_().add_(group["eps"]), value=-size)
            first = group.get("first_row", 0) + begin
            for kind, kept, value in ((WEIGHT, p, w), (FIRST, state["exp_avg"], m), (SECOND, state["exp_avg_sq"], v)):
                kept[rows] = rounded(value, first, update, kind)


def rounded(x: Tensor, first_row: int, update: int, kind: int) -> Tensor:
    """float32 [R, D] as bfloat16, up with a chance that makes the expected value x; NaN and infinity stay.

    The chance of a place is that of (its row counted from `first_row`, its column, `update`, `kind`).
    """
    rows = torch.arange(first_row, first_row + len(x), dtype=torch.int32, device=x.device)
    cols = torch.arange(x.shape[1], dtype=torch.int32, device=x.device) * AXES[1]
    noise = mix32_(mix32_(rows * AXES[0] + (update * 4 + kind) * AXES[2])[:, None] ^ cols)
    bits = (x.contiguous().view(torch.int32) + (noise & 0xFFFF)) & -0x10000
    return torch.where(torch.isfinite(x), bits.view(torch.float32), x).bfloat16()
