"""The text encoder: a Hugging Face transformer, a pooler, an optional projection, an optional normalisation.

B texts, T tokens (right-padded), H hidden width of the transformer, D width of the embedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.config import ConfigError
from dexml.encoders.chunkmode import ChunkMode
from dexml.encoders.features import segment_means
from dexml.encoders.packing import Packing

Pooler = Literal["cls", "mean", "pooler", "last"]
Precision = Literal["fp32", "bf16", "fp16"]
POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")  # what models call a learnt position table
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


_MODE: ContextVar[ChunkMode] = ContextVar("mode")  # of the forward pass of this thread


class TextEncoder(nn.Module):
    """Token ids to embeddings: `forward(ids [B, T], lengths [B], keys [B]) -> float32 [B, D]`.

    Args:
        backbone: the transformer; called with input_ids and attention_mask.
        pooler: `cls` first token, `mean` over real tokens, `last` real token, `pooler` the transformer's own.
        bottleneck: width of a linear projection after pooling; 0 for none.
        dropout: on the pooled (projected) embedding, before normalisation.
        normalize: divide by the L2 norm.
        precision: type of the transformer's arithmetic; pooling and what follows it stay in float32.
        layers: pool each of so many last layers and join their vectors, the last layer first; 0 for the last alone.
        segments: beside those the means of so many equal parts of the last layer, see `segment_means`.
        edges: special tokens at the beginning and the end of every text, which no segment counts.
    """

    states = False
    """True where the output is not a row a text but one a token, text by text: see `StateEncoder`."""

    def __init__(
        self,
        backbone: nn.Module,
        pooler: Pooler = "mean",
        bottleneck: int = 0,
        dropout: float = 0.0,
        normalize: bool = True,
        precision: Precision = "fp32",
        layers: int = 0,
        segments: int = 0,
        edges: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.tf = backbone
        hidden = hidden_width(backbone)
        self.layers, self.segments, self.edges = layers, segments, edges
        pooled = hidden * (max(1, layers) + segments)
        self.bottleneck = nn.Linear(pooled, bottleneck) if bottleneck else None
        self.width = bottleneck or pooled
        self.pooler, self.dropout, self.normalize, self.precision = pooler, dropout, normalize, precision
        own = getattr(backbone, "pooler", None)
        if pooler == "pooler" and own is None:
            raise ConfigError("tf_pooler: pooler needs a transformer with a pooling layer, this one has none")
        if pooler == "pooler" and (layers or segments):
            raise ConfigError("tf_pooler: pooler gives one vector of the last layer; take cls, mean or last")
        depth = getattr(backbone.config, "num_hidden_layers", layers)
        if layers > depth:
            raise ConfigError(f"doc_layers is {layers}, the transformer has {depth}")
        if pooler != "pooler" and isinstance(own, nn.Module):
            own.requires_grad_(False)

    def plain(self) -> TextEncoder:
        """The same transformer giving one vector, pooled from its last layer; itself where that is what it does."""
        if not (self.layers or self.segments):
            return self
        return TextEncoder(self.tf, self.pooler, normalize=True, precision=self.precision).train(self.training)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, ids_BT: Tensor, lengths_B: Tensor, keys_B: Tensor | None = None) -> Tensor:
        """Embeddings [B, D] in float32 (float64 for a float64 model); a text of no tokens is one padding token.

        Args:
            keys_B: int32 dropout key of each text; needed in training mode, see `ChunkMode`.
        """
        lengths_B = lengths_B.clamp(min=1)
        mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
        with self._mode(keys_B):
            with self._autocast():
                out = self.tf(input_ids=ids_BT, attention_mask=mask_BT.long(), **self._asked)
            if self.pooler == "pooler":
                return self._project(widen(out.pooler_output))
            vectors = [self._pool(hidden_BTH, mask_BT, lengths_B) for hidden_BTH in self._pooled(out)]
            if self.segments:
                text_of, positions = mask_BT.nonzero(as_tuple=True)
                vectors += [self._segments(out.last_hidden_state[mask_BT], text_of, positions, lengths_B)]
            return self._project(torch.cat(vectors, 1))

    def packed(
        self, ids_N: Tensor, packing: Packing, keys_B: Tensor | None = None, sparse_grad: bool = False
    ) -> Tensor:
        """The same [B, D] for texts laid end to end: no work on padding. Not every model can: see `can_pack`.

        Args:
            sparse_grad: the gradients of embedding tables are sparse tensors.
        """
        positions_N = packing.positions + first_position(self.tf)
        with self._mode(keys_B, packing, sparse_grad):
            with self._autocast():
                out = self.tf(input_ids=ids_N[None], position_ids=positions_N[None], **self._asked)
            vectors = [self._pool_packed(hidden_1NH[0], packing) for hidden_1NH in self._pooled(out)]
            if self.segments:
                places = packing.text_of, packing.positions, torch.from_numpy(packing.lengths)
                vectors += [self._segments(out.last_hidden_state[0], *places)]
            return self._project(torch.cat(vectors, 1))

    @cached_property
    def packs(self) -> bool:
        """Whether `packed` is right for this model and faster: on a CPU, where a trial gives equal vectors."""
        return self.device.type == "cpu" and not self._compiled and self.pooler != "pooler" and _packs(self)

    @cached_property
    def draws(self) -> bool:
        """Whether the model draws random numbers of its own in training."""
        ids, lengths, keys = _probe(self)
        with _trial(self, training=True):
            before = _random_state(self.device)
            self(ids, lengths, keys)
            return not torch.equal(before, _random_state(self.device))

    @property
    def _compiled(self) -> bool:
        return self.tf._compiled_call_impl is not None

    def checkpoint_gradients(self) -> None:
        """Recomputes each layer in the backward pass instead of keeping it: less memory, more time, same result."""

        def contexts() -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
            mode = _MODE.get()
            return contextlib.nullcontext(), mode.at(mode.site)

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

    @property
    def _asked(self) -> dict[str, bool]:
        return {"output_hidden_states": True} if self.layers > 1 else {}

    def _pooled(self, out: Any) -> list[Tensor]:
        """Hidden states of the layers that are pooled, the last layer first."""
        return list(reversed(out.hidden_states[-self.layers :])) if self.layers > 1 else [out.last_hidden_state]

    def _segments(self, hidden_NH: Tensor, text_of: Tensor, positions: Tensor, lengths_B: Tensor) -> Tensor:
        first, last = self.edges
        inner = (lengths_B - first - last).clamp(min=0)
        return segment_means(widen(hidden_NH), text_of, positions - first, inner, self.segments)

    def _pool(self, hidden_BTH: Tensor, mask_BT: Tensor, lengths_B: Tensor) -> Tensor:
        if self.pooler == "cls":
            return widen(hidden_BTH[:, 0])
        if self.pooler == "last":
            rows = torch.arange(len(hidden_BTH), device=hidden_BTH.device)
            return widen(hidden_BTH[rows, lengths_B - 1])
        hidden_BTH = widen(hidden_BTH)
        return (hidden_BTH * mask_BT[..., None].to(hidden_BTH.dtype)).sum(1) / lengths_B[:, None].to(hidden_BTH.dtype)

    def _pool_packed(self, hidden_NH: Tensor, packing: Packing) -> Tensor:
        if self.pooler == "mean":
            return packing.mean(widen(hidden_NH))
        lengths_B = torch.from_numpy(packing.lengths)
        return widen(hidden_NH[packing.starts + (lengths_B - 1 if self.pooler == "last" else 0)])

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        # no cache of cast weights: it is one for all threads, and a chunk casts each weight once anyway
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision], cache_enabled=False)

    @contextlib.contextmanager
    def _mode(self, keys_B: Tensor | None, packing: Packing | None = None, sparse_grad: bool = False) -> Iterator[None]:
        keys = keys_B if self.training else None
        if self.training and keys is None:
            raise ValueError("keys: a dropout key for each text is needed in training mode")
        with ChunkMode(keys, packing=packing, half=AUTOCAST.get(self.precision), sparse=sparse_grad) as mode:
            token = _MODE.set(mode)
            try:
                yield
            finally:
                _MODE.reset(token)


def first_position(backbone: nn.Module) -> int:
    """The position id of a text's first token: RoBERTa and its kin count from padding_idx + 1."""
    table = position_table(backbone)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def position_table(backbone: nn.Module) -> nn.Embedding | None:
    """The table of learnt positions, None for relative or rotary positions."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            return module
    return None


def hidden_width(backbone: nn.Module) -> int:
    """Width H of the token vectors a transformer gives; ConfigError if its config does not tell."""
    width = getattr(backbone.config, "hidden_size", None)
    if not isinstance(width, int):
        raise ConfigError(f"tf: {type(backbone).__name__} tells no hidden_size: it is not a model of text alone")
    return width


def widen(x: Tensor) -> Tensor:
    """In float32, or float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()


def _probe(encoder: TextEncoder) -> tuple[Tensor, Tensor, Tensor]:
    """Three texts for a trial: ids [3, 5], lengths, keys."""
    lengths = torch.tensor([5, 3, 3])
    vocabulary = getattr(encoder.tf.config, "vocab_size", 8)
    ids = 2 + torch.arange(15).view(3, 5) % max(1, vocabulary - 2)
    mask = torch.arange(5) < lengths[:, None]
    parts = ids * mask, lengths, torch.tensor([3, 1, 2], dtype=torch.int32)
    return tuple(part.to(encoder.device) for part in parts)  # type: ignore[return-value]


@contextlib.contextmanager
def _trial(encoder: TextEncoder, training: bool) -> Iterator[None]:
    """In float32, without gradients, leaving mode and random numbers as they were."""
    mode, precision = encoder.training, encoder.precision
    encoder.train(training)
    encoder.precision = "fp32"
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[encoder.device] if encoder.device.type == "cuda" else []):
            yield
    finally:
        encoder.train(mode)
        encoder.precision = precision


def _random_state(device: torch.device) -> Tensor:
    """Of the generator that models on the device draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _packs(encoder: TextEncoder) -> bool:
    ids, lengths, keys = _probe(encoder)
    packing = Packing(lengths.numpy())
    for training in (False, True):
        with _trial(encoder, training):
            padded = encoder(ids, lengths, keys)
            try:
                packed = encoder.packed(ids[ids > 0], packing, keys)
            except Exception:  # whatever a model raises that was not made for this
                return False
        if not torch.allclose(padded, packed, rtol=1e-3, atol=1e-5):
            return False
    return True
