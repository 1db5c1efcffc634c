"""Gradient caching: encode without a graph, take the loss gradient at the embeddings, encode again chunk by chunk
with a graph and push the gradient through (Gao et al. 2021, arXiv 2101.06983).

Memory holds one chunk's activations however many texts there are. Both passes give the same vectors because dropout is
a function of the text (`RowDropout`) and a chunk is padded the same way twice. Where all texts fit the budget
of one chunk their graph is kept and the second encoding is saved.

n texts of one side of a step on this rank, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.data.batching import Ints, length_chunks, take_padded
from dexml.data.tokens import Tokens
from dexml.encoders.text import TextEncoder


@dataclass(frozen=True)
class Chunking:
    """How many texts go through the encoder at a time. Results do not depend on it."""

    max_rows: int
    token_budget: int


class TextSide:
    """The texts of one side (queries or labels) of a step, on one rank.

    Args:
        tokens, rows: rows [n] of a token store.
        keys: [n] dropout keys, see `dropout_keys`.
        keep_graph: encode once with a graph even if there are several chunks: faster, memory grows with n.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        tokens: Tokens,
        rows: Ints,
        keys: NDArray[np.int32],
        chunking: Chunking,
        keep_graph: bool = False,
    ) -> None:
        self.encoder = encoder
        self.tokens, self.rows, self.keys = tokens, rows, keys
        flat, lengths = tokens.gather(rows)
        self.flat, self.lengths = flat, lengths.astype(np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.chunks = length_chunks(self.lengths, chunking.max_rows, chunking.token_budget)
        padded = sum(len(chunk) * int(self.lengths[chunk[0]]) for chunk in self.chunks)
        self.keep_graph = keep_graph or padded <= chunking.token_budget
        self._graph: Tensor | None = None
        self.encoded_tokens = 0

    def embed(self) -> Tensor:
        """The embeddings [n, D], without a graph."""
        if self.keep_graph and self.chunks and torch.is_grad_enabled():
            self._graph = self._encode_all()
            return self._graph.detach()
        with torch.no_grad():
            return self._encode_all()

    def backward(self, grad_nD: Tensor) -> None:
        """Adds the parameter gradients of sum(embedding * grad) to `.grad`."""
        if self._graph is not None:
            self._graph.backward(grad_nD)
            self._graph = None
            return
        for chunk in self.chunks:
            self._encode(chunk).backward(grad_nD[torch.from_numpy(chunk).to(grad_nD.device)])

    def _encode_all(self) -> Tensor:
        if not self.chunks:
            return torch.zeros((0, self.encoder.width), device=self.encoder.device, dtype=self._dtype())
        parts = torch.cat([self._encode(chunk) for chunk in self.chunks])
        order = torch.from_numpy(np.concatenate(self.chunks)).to(parts.device)
        return torch.empty_like(parts).index_copy(0, order, parts)

    def _encode(self, chunk: Ints) -> Tensor:
        device = self.encoder.device
        ids, lengths = take_padded(self.flat, self.offsets, chunk, self.tokens.pad_id)
        self.encoded_tokens += ids.size
        keys = torch.from_numpy(self.keys[chunk]).to(device)
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(self.keys[chunk[0]]))  # for models that draw random numbers in ways of their own
            return self.encoder(torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device), keys)

    def _dtype(self) -> torch.dtype:
        return torch.float64 if next(self.encoder.parameters()).dtype == torch.float64 else torch.float32
