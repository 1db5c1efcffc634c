"""What some calls of a model become while a chunk of texts goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dexml.config import ConfigError
from dexml.encoders.attention import Attending, Attention, Dropout, plain_attention, repeated
from dexml.encoders.dropout import place_codes, scaled_mask, site_keys
from dexml.encoders.linear import GeluLinear, Linear
from dexml.encoders.packing import Packing


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
        self._activated: tuple[Tensor, Tensor, str] | None = None  # input, output and kind of the last activation
        self._calls: dict[Callable, Callable] = {
            F.dropout: self._dropout,
            F.scaled_dot_product_attention: self._attention,
            F.linear: self._linear,
            F.gelu: self._gelu,
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
            return scaled_mask(
                place_codes(x.shape[2:], packing.positions), keys[packing.text_of], p, x.dtype
            ).unsqueeze(0)
        if len(x) != len(keys):
            raise ConfigError(
                f"dropout over a tensor of shape {tuple(x.shape)}: its first axis is not the batch of "
                f"{len(keys)} texts; set tf_dropout: 0 for this model"
            )
        return scaled_mask(place_codes(x.shape[1:], device=x.device), keys, p, x.dtype)

    def _site_keys(self) -> Tensor:
        """int32 [B], the scrambled keys of the next dropout."""
        if self.keys is None:
            raise ValueError("keys: a dropout key for each text is needed in training mode")
        self.site += 1
        return site_keys(self.keys, self.site)

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
        dropout = Dropout(self._site_keys(), dropout_p) if dropout_p > 0 else None
        if self.packing is not None:
            if attn_mask is not None:
                raise ValueError("attn_mask: texts laid end to end have none")
            factor = query.shape[-1] ** -0.5 if scale is None else scale
            sides = query, *repeated(query, key, value)
            return self._packed_attention(self.packing, sides, Attending(factor, is_causal, dropout))
        # in training on a CPU: the fused kernel's bfloat16 backward takes 7x the time of plain products
        if dropout is None and (self.keys is None or query.device.type != "cpu"):
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
            )
        return plain_attention(query, *repeated(query, key, value), attn_mask, dropout, is_causal, scale)

    def _packed_attention(self, packing: Packing, sides: tuple[Tensor, ...], how: Attending) -> Tensor:
        def fused(texts: slice, *parts: Tensor) -> tuple[Tensor]:
            q, k, v = (x.unsqueeze(0) for x in parts)
            return (F.scaled_dot_product_attention(q, k, v, is_causal=how.is_causal, scale=how.scale)[0],)

        if self.keys is None and not torch.is_grad_enabled():
            return packing.by_run(fused, *sides)[0]
        return Attention.apply(*sides, packing, how)

    # --- casts and gradients ---

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        half = self.half if torch.is_autocast_enabled(x.device.type) else None
        if half is not None and x.dtype == torch.float32:
            if self._cast is None or self._cast[0] is not x or self._cast[1] != x._version:
                self._cast = x, x._version, x.to(half)
            x = self._cast[2]
        if self.packing is None:
            return F.linear(x, weight, bias)
        if half is not None:
            weight, bias = weight.to(half), None if bias is None else bias.to(half)
        activated, self._activated = self._activated, None
        if activated is not None and activated[1] is x:
            u, active, approximate = activated
            return GeluLinear.apply(u, weight, bias, active.detach(), approximate)
        return Linear.apply(x, weight, bias)

    def _gelu(self, x: Tensor, approximate: str = "none") -> Tensor:
        out = F.gelu(x, approximate=approximate)
        self._activated = x, out, approximate
        return out

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
