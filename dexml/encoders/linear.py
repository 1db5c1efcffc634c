"""Linear layers on a CPU: by the faster library for the processor, and keeping less for the backward pass.

N rows, I and O the widths of a layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from dexml.products import product

Grads = tuple[Tensor | None, ...]


class Linear(Function):
    """x [..., I], weight [O, I], bias [O] or None to x @ weight.T + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x.flatten(0, -2), weight.t(), bias).unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Grads:
        x, weight = ctx.saved_tensors
        grad_NO = grad.flatten(0, -2)
        grad_x = product(grad_NO, weight).view_as(x) if ctx.needs_input_grad[0] else None
        return grad_x, *_weight_grads(ctx, grad_NO, x.flatten(0, -2))


class GeluLinear(Function):
    """Linear of gelu(u): keeps u alone and computes gelu(u) again. `active` is gelu(u), which carries no gradient."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, bias: Tensor | None, active: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(u, weight)
        ctx.approximate = approximate
        return product(active.flatten(0, -2), weight.t(), bias).unflatten(0, active.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Grads:
        u, weight = ctx.saved_tensors
        grad_NO = grad.flatten(0, -2)
        active = F.gelu(u, approximate=ctx.approximate)
        grads = _weight_grads(ctx, grad_NO, active.flatten(0, -2))
        grad_active = product(grad_NO, weight).view_as(u)
        return torch.ops.aten.gelu_backward(grad_active, u, approximate=ctx.approximate), *grads, None, None


def _weight_grads(ctx: Any, grad_NO: Tensor, x_NI: Tensor) -> Grads:
    weight = product(grad_NO.t(), x_NI) if ctx.needs_input_grad[1] else None
    bias = grad_NO.sum(0) if ctx.needs_input_grad[2] else None
    return weight, bias
