"""What some calls of a model become while a chunk of texts goes through it.

Dropout: ordinary dropout draws from one random stream, so a mask depends on the batch, its padding and the process.
Here the mask of an element is a hash of (key of the text, dropout site, position in the text): encoding a text again,
in another chunk, padded or packed or on another machine, drops the same elements. Gradient caching is then exact
without saving random states, and one process equals many with dropout on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dexml.config import ConfigError
from dexml.encoders.packing import Packing

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


class ChunkMode(TorchFunctionMode):
    """While active: dropout by key, attention inside each text, one cast where several layers share an input.

    Args:
        keys: int32 [B], one a text of the chunk; None where nothing is dropped.
        site: dropouts that came before, to replay a part of a forward pass.
        packing: the texts lie end to end, [1, N, ...] instead of [B, T, ...].
        half: type that linear layers compute in, under autocast.
        sparse: gradients of embedding tables name the rows they touch (sparse tensors) instead of filling a table.
    """

    def __init__(
        self,
        keys: Tensor | None,
        site: int = 0,
        packing: Packing | None = None,
        half: torch.dtype | None = None,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        if keys is not None and (keys.dtype != torch.int32 or keys.dim() != 1):
            raise ValueError(f"dropout keys must be int32 [B], not {keys.dtype} {tuple(keys.shape)}: see dropout_keys")
        self.keys, self.site, self.packing, self.half, self.sparse = keys, site, packing, half, sparse
        self._cast: tuple[Tensor, int, Tensor] | None = None
        self._calls: dict[Callable, Callable] = {
            F.dropout: self._dropout,
            F.scaled_dot_product_attention: self._attention,
            F.linear: self._linear,
            F.embedding: self._embedding,
        }

    def at(self, site: int) -> ChunkMode:
        """The same from dropout `site` on."""
        return ChunkMode(self.keys, site, self.packing, self.half, self.sparse)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return self._calls.get(func, func)(*args, **(kwargs or {}))

    # --- dropout ---

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        return x * self.scaled_mask(x, p)

    @torch.no_grad()
    def scaled_mask(self, x: Tensor, p: float) -> Tensor:
        """0 where x is dropped, 1/(1-p) where it is kept, in the type of x."""
        keys, packing = self._site_keys(), self.packing
        if packing is not None and x.shape[:2] == (1, len(packing.text_of)):
            return _scaled(_codes(x.shape[2:], packing.positions), keys[packing.text_of], p, x.dtype).unsqueeze(0)
        if len(x) != len(keys):
            raise ConfigError(
                f"dropout over a tensor of shape {tuple(x.shape)}: its first axis is not the batch of "
                f"{len(keys)} texts; set tf_dropout: 0 for this model"
            )
        return _scaled(_codes(x.shape[1:], device=x.device), keys, p, x.dtype)

    def _site_keys(self) -> Tensor:
        """int32 [B], the scrambled keys of the next dropout."""
        if self.keys is None:
            raise ValueError("keys: a dropout key for each text is needed in training mode")
        self.site += 1
        return mix32_(self.keys + self.site * AXES[0])

    # --- attention ---

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
        options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        keys = self._site_keys() if dropout_p > 0 else None

        def attend(q: Tensor, k: Tensor, v: Tensor, texts: slice) -> Tensor:
            # in training on a CPU: the fused kernel's bfloat16 backward takes 7x the time of plain products
            if keys is None and (self.keys is None or q.device.type != "cpu"):
                return F.scaled_dot_product_attention(q, k, v, attn_mask, **options)
            mask = None if keys is None else (keys[texts], dropout_p)
            return _attention(q, k, v, attn_mask, mask, **options)

        if self.packing is None:
            return attend(query, key, value, slice(None))
        if attn_mask is not None:
            raise ValueError("attn_mask: texts laid end to end have none")
        return self.packing.attention(query, key, value, attend)

    # --- casts and gradients ---

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.half is not None and x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type):
            if self._cast is None or self._cast[0] is not x or self._cast[1] != x._version:
                self._cast = x, x._version, x.to(self.half)
            x = self._cast[2]
        return F.linear(x, weight, bias)

    def _embedding(
        self,
        ids: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        plain = max_norm is None and not scale_grad_by_freq
        sparse = sparse or (self.sparse and plain and ids.numel() < len(weight))
        return F.embedding(ids, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)


def _codes(shape: torch.Size, positions: Tensor | None = None, device: torch.device | None = None) -> Tensor:
    """A code for each place of a text, every axis adding its own multiples: int32 [1, *shape] of a padded text, or
    [N, *shape] of tokens at `positions` [N]."""
    code = torch.zeros(1, dtype=torch.int32, device=device) if positions is None else positions.int() * AXES[0]
    for axis, size in enumerate(shape, int(positions is not None)):
        code = code.unsqueeze(-1) + torch.arange(size, dtype=torch.int32, device=code.device) * AXES[axis]
    return code


def _scaled(code: Tensor, keys: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """The mask of rows with `keys` [R] from their place codes [R or 1, ...]."""
    keep = mix32_(mix32_(code) ^ keys.view(-1, *[1] * (code.dim() - 1))) >= int((p - 0.5) * 2**32)
    return keep.to(dtype).mul_(1 / (1 - p) if p < 1 else 0)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout: tuple[Tensor, float] | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """Scaled dot-product attention in plain products; `dropout` holds the keys of the rows and the rate."""
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
    probabilities = scores.softmax(-1)
    if dropout is not None:
        with torch.no_grad():
            mask = _scaled(_codes(probabilities.shape[1:], device=query.device), *dropout, probabilities.dtype)
        probabilities = probabilities * mask
    return probabilities.to(value.dtype) @ value
