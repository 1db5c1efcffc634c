"""Matrix products on a CPU by the faster library for the processor."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from dexml.machine import mkl_is_slow


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a [N, I] @ b [I, O] + bias [O]; slow where neither b nor its transpose lies in one piece."""
    if onednn(a):  # a private operation of torch, kept stable for its compiler
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
    return a @ b if bias is None else torch.addmm(bias, a, b)


def onednn(a: Tensor) -> bool:
    """Whether products with `a` go to oneDNN: single precision on processors where MKL leaves half of it unused."""
    return a.dtype == torch.float32 and a.device.type == "cpu" and _onednn_is_faster()


@cache
def _onednn_is_faster() -> bool:
    return mkl_is_slow() and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
