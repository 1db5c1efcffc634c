"""Adam that leaves rows alone which a step does not touch (as AttentionXML trains its tables, arXiv 1811.01727)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LazyAdam(torch.optim.Optimizer):
    """Adam with the step size corrected for the bias of both moments, eps added to the uncorrected root.

    Of a sparse gradient only the rows present are updated, moments and weights; absent rows do not decay, while the
    count of steps is that of all. Weight decay is decoupled (lr * weight_decay * weight) and of the same rows.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)

    def _update(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state.update(step=torch.zeros(()), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        t = float(state["step"])
        size = group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        rows, grad = _rows(p)
        m, v, weight = (x if rows is None else x[rows] for x in (state["exp_avg"], state["exp_avg_sq"], p))
        m.lerp_(grad, 1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-size)
        if rows is not None:
            state["exp_avg"][rows], state["exp_avg_sq"][rows], p[rows] = m, v, weight


def _rows(p: Tensor) -> tuple[Tensor | None, Tensor]:
    """The rows that a gradient names, None for all, and their values."""
    grad = p.grad
    assert grad is not None
    if not grad.is_sparse:
        return None, grad
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()
