"""The text encoder: a Hugging Face transformer, a pooler, an optional projection, an optional normalisation.

B texts, T tokens (right-padded), H hidden width of the transformer, D width of the embedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.config import ConfigError
from dexml.encoders.dropout import RowDropout

Pooler = Literal["cls", "mean", "pooler", "last"]
Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TextEncoder(nn.Module):
    """Token ids to embeddings: `forward(ids [B, T], lengths [B], keys [B]) -> float32 [B, D]`.

    Args:
        backbone: the transformer; called with input_ids and attention_mask.
        pooler: `cls` first token, `mean` over real tokens, `last` real token, `pooler` the transformer's own.
        bottleneck: width of a linear projection after pooling; 0 for none.
        dropout: on the pooled (projected) embedding, before normalisation.
        normalize: divide by the L2 norm.
        precision: type of the transformer's arithmetic; pooling and what follows it stay in float32.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooler: Pooler = "mean",
        bottleneck: int = 0,
        dropout: float = 0.0,
        normalize: bool = True,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.tf = backbone
        hidden = hidden_width(backbone)
        self.bottleneck = nn.Linear(hidden, bottleneck) if bottleneck else None
        self.width = bottleneck or hidden
        self.pooler, self.dropout, self.normalize, self.precision = pooler, dropout, normalize, precision
        self._active: RowDropout | None = None
        own = getattr(backbone, "pooler", None)
        if pooler == "pooler" and own is None:
            raise ConfigError("tf_pooler: pooler needs a transformer with a pooling layer, this one has none")
        if pooler != "pooler" and isinstance(own, nn.Module):
            own.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, ids_BT: Tensor, lengths_B: Tensor, keys_B: Tensor | None = None) -> Tensor:
        """Embeddings [B, D] in float32 (float64 for a float64 model); a text of no tokens is one padding token.

        Args:
            keys_B: int32 dropout key of each text; needed in training mode, see `RowDropout`.
        """
        lengths_B = lengths_B.clamp(min=1)
        mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
        with self._row_dropout(keys_B):
            with self._autocast():
                out = self.tf(input_ids=ids_BT, attention_mask=mask_BT.long())
            return self._project(self._pool(out, mask_BT, lengths_B))

    def checkpoint_gradients(self) -> None:
        """Recomputes each layer in the backward pass instead of keeping it: less memory, more time, same result."""

        def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
            drop = self._active
            replay = RowDropout(drop.keys, drop.site) if drop else contextlib.nullcontext()
            return contextlib.nullcontext(), replay

        # the older name is deprecated in transformers 5 and the only one in transformers 4
        names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
        enable: Any = next(getattr(self.tf, name) for name in names if hasattr(self.tf, name))
        try:
            enable({"use_reentrant": False, "context_fn": contexts})
        except ValueError as error:
            raise ConfigError(f"grad_checkpointing: {error}; set it to false for this model") from error

    def _project(self, x: Tensor) -> Tensor:
        if self.bottleneck is not None:
            x = self.bottleneck(x)
        x = F.dropout(x, self.dropout, self.training)
        return F.normalize(x, dim=-1) if self.normalize else x

    def _pool(self, out: Any, mask_BT: Tensor, lengths_B: Tensor) -> Tensor:
        if self.pooler == "pooler":
            return _widen(out.pooler_output)
        hidden_BTH = out.last_hidden_state
        if self.pooler == "cls":
            return _widen(hidden_BTH[:, 0])
        if self.pooler == "last":
            rows = torch.arange(len(hidden_BTH), device=hidden_BTH.device)
            return _widen(hidden_BTH[rows, lengths_B - 1])
        hidden_BTH = _widen(hidden_BTH)
        return (hidden_BTH * mask_BT[..., None].to(hidden_BTH.dtype)).sum(1) / lengths_B[:, None].to(hidden_BTH.dtype)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])

    @contextlib.contextmanager
    def _row_dropout(self, keys_B: Tensor | None) -> Iterator[None]:
        if not self.training:
            yield
            return
        if keys_B is None:
            raise ValueError("keys: a dropout key for each text is needed in training mode")
        try:
            with RowDropout(keys_B) as self._active:
                yield
        finally:
            self._active = None


def hidden_width(backbone: nn.Module) -> int:
    """Width H of the token vectors a transformer gives; ConfigError if its config does not tell."""
    width = getattr(backbone.config, "hidden_size", None)
    if not isinstance(width, int):
        raise ConfigError(f"tf: {type(backbone).__name__} tells no hidden_size: it is not a model of text alone")
    return width


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
