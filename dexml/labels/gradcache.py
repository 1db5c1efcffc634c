"""Gradient caching: encode without a graph, take the loss gradient at the embeddings, encode again chunk by chunk
with a graph and push the gradient through (Gao et al. 2021, arXiv 2101.06983).

Memory holds the activations of the chunks at work however many texts there are. Both passes give the same vectors
because dropout is a function of the text (`ChunkMode`) and chunks are cut once. Where memory allows the graph is kept
and the second encoding is saved.

n texts of one side of a step on this rank, D embedding width. An encoder of states gives a row a token, not a text.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.data.batching import Ints
from dexml.data.tokens import Tokens
from dexml.distributed import GradientReduction
from dexml.encoders.chunks import Chunks
from dexml.encoders.text import TextEncoder
from dexml.labels.gradsums import GradientSums


@dataclass(frozen=True)
class Chunking:
    """How many texts and tokens go through the encoder at a time. Results do not depend on it."""

    max_rows: int
    token_budget: int


class TextSide:
    """The texts of one side (queries or labels) of a step, on one rank.

    Args:
        tokens, rows: rows [n] of a token store.
        keys: [n] dropout keys, see `dropout_keys`.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        tokens: Tokens,
        rows: Ints,
        keys: NDArray[np.int32],
        chunking: Chunking,
    ) -> None:
        self.encoder, self.keys = encoder, keys
        self.chunks = Chunks(encoder, *tokens.gather(rows), tokens.pad_id, chunking.max_rows, chunking.token_budget)
        self._kept = 0  # chunks, the first ones, whose graph is kept from `embed` to `backward`
        self._graphs: list[Tensor] = []
        self.encoded_tokens = 0

    def keep(self, tokens: float) -> int:
        """Encodes chunks of up to `tokens` tokens once, with a graph: faster, and memory grows. Results are the same.

        Returns the tokens that are kept.
        """
        sums = np.cumsum([0, *self.chunks.part_tokens])
        self._kept = int(np.searchsorted(sums, max(0, tokens), side="right")) - 1
        return int(sums[self._kept])

    def embed(self) -> Tensor:
        """The embeddings [n, D], without a graph."""
        training = torch.is_grad_enabled()

        def encode(i: int, worker: int) -> Tensor:
            with torch.set_grad_enabled(training and i < self._kept):
                return self._encode(i, worker)

        parts = self.chunks.map(encode)
        self._graphs = parts[: self._kept] if training else []
        self.encoded_tokens += self.chunks.tokens
        return self.chunks.join([part.detach() for part in parts])

    def backward(self, grad_nD: Tensor, reduction: GradientReduction | None = None) -> None:
        """Adds the parameter gradients of sum(embedding * grad) to `.grad`.

        Args:
            reduction: these gradients are the last of the step, and it is told of each as soon as it is complete.
        """
        graphs, self._graphs = self._graphs, []
        self.encoded_tokens += sum(self.chunks.part_tokens[len(graphs) :])
        parameters = [p for p in self.encoder.parameters() if p.requires_grad]
        parts, workers = self.chunks.parts, self.chunks.workers
        sums = GradientSums(parameters, min(workers, len(parts)), reduction)

        def push(i: int, worker: int) -> None:
            out = graphs[i] if i < len(graphs) else self._encode(i, worker)
            grad_BD = grad_nD[torch.from_numpy(self.chunks.rows(parts[i])).to(grad_nD.device)]
            with sums.last(worker) if i + workers >= len(parts) else nullcontext():
                sums.add(worker, torch.autograd.grad(out, parameters, grad_BD, allow_unused=True))

        self.chunks.map(push)
        sums.into_grad()

    def _encode(self, i: int, worker: int) -> Tensor:
        return self.chunks.encode(self.chunks.parts[i], self.keys, sparse_grad=True)
