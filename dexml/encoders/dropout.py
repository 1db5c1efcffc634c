"""Dropout whose mask belongs to the text, not to the place the text has in a batch.

Ordinary dropout draws from one random stream, so a mask depends on the batch, its padding and the process. Here
the mask of an element is a hash of (key of the row, dropout site, position in the row): encoding a text again, in
another chunk, padded to another width or on another machine, drops the same elements. Gradient caching is then
exact without saving random states, and one process equals many with dropout on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dexml.config import ConfigError

# odd 32-bit constants as signed numbers: one an axis, so that an element's code does not depend on the padded width
AXES = (-1640531535, 2135587861, 374761393 * 2 + 1, -2048144777)
MIX_1, MIX_2 = -2048144789, -1028477387  # the two multipliers of murmur3's finalizer


def mix32_(x: Tensor) -> Tensor:
    """Scrambles int32 codes in place (the finalizer of MurmurHash3): every input bit moves every output bit."""
    x ^= (x >> 16) & 0xFFFF
    x *= MIX_1
    x ^= (x >> 13) & 0x7FFFF
    x *= MIX_2
    return x


class RowDropout(TorchFunctionMode):
    """While active, every dropout of a model draws its mask by row key.

    Args:
        keys: int32 [B], one a row of the batch being encoded.
        site: dropouts that came before, to replay a part of a forward pass.
    """

    def __init__(self, keys: Tensor, site: int = 0) -> None:
        super().__init__()
        if keys.dtype != torch.int32 or keys.dim() != 1:
            raise ValueError(f"dropout keys must be int32 [B], not {keys.dtype} {tuple(keys.shape)}: see dropout_keys")
        self.keys = keys
        self.site = site

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            # on a CPU the fused kernel's bfloat16 backward takes 5x the time of plain products at 16 tokens
            dropout_p = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
            plain = dropout_p > 0 or self.keys.device.type == "cpu"
            return self._attention(*args, **kwargs) if plain else func(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        return x * self.scaled_mask(x, p)

    def scaled_mask(self, x: Tensor, p: float) -> Tensor:
        """0 where x is dropped, 1/(1-p) where it is kept, in the type of x."""
        self.site += 1
        if x.shape[0] != len(self.keys):
            raise ConfigError(
                f"dropout over a tensor of shape {tuple(x.shape)}: its first axis is not the batch of "
                f"{len(self.keys)} texts; set tf_dropout: 0 for this model"
            )
        with torch.no_grad():
            code = torch.zeros((), dtype=torch.int32, device=x.device)
            for axis, size in enumerate(x.shape[1:]):
                steps = torch.arange(size, dtype=torch.int32, device=x.device) * AXES[axis]
                code = code.unsqueeze(-1) + steps
            row = mix32_(self.keys + self.site * AXES[0]).view(-1, *[1] * (x.dim() - 1))
            keep = mix32_(mix32_(code) ^ row) >= int((p - 0.5) * 2**32)
            return keep.to(x.dtype).mul_(1 / (1 - p) if p < 1 else 0)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Scaled dot-product attention with its probabilities in reach of the mask."""
        if enable_gqa:
            repeat = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~past, torch.finfo(scores.dtype).min)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            # not -inf: padding that may look at nothing must not become NaN, which spreads by 0 * NaN
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        probabilities = self._dropout(scores.softmax(-1), dropout_p)
        return probabilities.to(value.dtype) @ value
