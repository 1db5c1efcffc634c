"""Attention, in the two forms that dropout by hash and texts laid end to end need.

B texts, T tokens of each, N tokens of all, H heads, d the width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from dexml.encoders.dropout import place_codes, scaled_mask
from dexml.encoders.packing import Packing

Grads = tuple[Tensor | None, ...]
SHORT = 16  # tokens; the width of a vector register in numbers


@dataclass(frozen=True)
class Dropout:
    """What is dropped of attention probabilities."""

    keys: Tensor
    """[B] of the texts at this site, see `site_keys`"""
    p: float

    @torch.no_grad()
    def mask(self, probabilities: Tensor, texts: slice = slice(None)) -> Tensor:
        """The scaled mask of the probabilities [B, H, T, T] of some texts."""
        codes = place_codes(probabilities.shape[1:], device=probabilities.device)
        return scaled_mask(codes, self.keys[texts], self.p, probabilities.dtype)


def repeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Key and value with as many heads as the query."""
    repeat = query.shape[1] // key.shape[1]
    return (key, value) if repeat == 1 else (key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1))


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout: Dropout | None,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """Scaled dot-product attention of padded texts [B, H, T, d] in plain products."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~past, torch.finfo(scores.dtype).min)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # not -inf: padding that may look at nothing must not become NaN, which spreads by 0 * NaN
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    probabilities = scores.softmax(-1)
    if dropout is not None:
        probabilities = probabilities * dropout.mask(probabilities)
    return probabilities.to(value.dtype) @ value


@dataclass(frozen=True)
class Attending:
    """How the texts of a chunk attend: the factor of the scores, whether only to what came before, what is dropped."""

    scale: float
    is_causal: bool
    dropout: Dropout | None

    def probabilities(self, q: Tensor, k: Tensor, texts: slice) -> tuple[Tensor, Tensor | None]:
        """Of texts of equal length, q and k [texts * H, T, d]: probabilities [texts * H, T, T], their scaled mask."""
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=self.scale)
        if self.is_causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores.masked_fill_(future, torch.finfo(scores.dtype).min)
        probabilities = _softmax(scores)
        if self.dropout is None:
            return probabilities, None
        by_text = probabilities.unflatten(0, (texts.stop - texts.start, -1))
        return probabilities, self.dropout.mask(by_text, texts).flatten(0, 1)


class Attention(Function):
    """Attention inside each text: query, key and value [1, H, N, d] to the same shape. Probabilities are not kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, how: Attending) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.packing, ctx.how = packing, how

        def attend(texts: slice, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
            probabilities, mask = how.probabilities(q, k, texts)
            return (_dropped(probabilities, mask) @ v,)

        return packing.by_run(attend, query, key, value)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Grads:
        how: Attending = ctx.how

        def back(texts: slice, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            probabilities, mask = how.probabilities(q, k, texts)
            grad_v = _dropped(probabilities, mask).mT @ g
            grad_p = _dropped(g @ v.mT, mask)
            grad_s = _softmax_backward(grad_p, probabilities).mul_(how.scale)
            return grad_s @ k, grad_s.mT @ q, grad_v

        return *ctx.packing.by_run(back, *ctx.saved_tensors, grad), None, None


def _dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _softmax(x: Tensor) -> Tensor:
    """Of the last axis of x [R, T, T]. Over short rows torch does one row at a time, over many columns many at once."""
    return _rows_last(x, lambda y: y.softmax(1)) if x.shape[-1] < SHORT else x.softmax(-1)


def _softmax_backward(grad: Tensor, probabilities: Tensor) -> Tensor:
    def formula(g: Tensor, p: Tensor, axis: int) -> Tensor:
        return torch._softmax_backward_data(g, p, axis, p.dtype)

    if probabilities.shape[-1] >= SHORT:
        return formula(grad, probabilities, -1)
    return _rows_last(grad, lambda g, p: formula(g, p, 1), probabilities)


def _rows_last(x: Tensor, work: Callable[..., Tensor], *more: Tensor) -> Tensor:
    """`work` on the inputs [R, T, T] laid out as [T, T, R]."""
    rows, *square = x.shape
    turned = [y.flatten(1).t().contiguous().view(*square, rows) for y in (x, *more)]
    return work(*turned).flatten(0, 1).t().contiguous().view(x.shape)
