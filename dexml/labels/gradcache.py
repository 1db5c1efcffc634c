"""Gradient caching: encode without a graph, take the loss gradient at the embeddings, encode again chunk by chunk
with a graph and push the gradient through (Gao et al. 2021, arXiv 2101.06983).

Memory holds the activations of the chunks at work however many texts there are. Both passes give the same vectors
because dropout is a function of the text (`ChunkMode`) and chunks are cut once. Where memory allows the graph is kept
and the second encoding is saved.

n texts of one side of a step on this rank, D embedding width.
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
        keep_graph: encode once, with a graph: faster, and memory grows with n. The gradient is the same.
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
        self.encoder, self.keys, self.keep_graph = encoder, keys, keep_graph
        self.chunks = Chunks(encoder, *tokens.gather(rows), tokens.pad_id, chunking.max_rows, chunking.token_budget)
        self._graphs: list[Tensor] | None = None
        self.encoded_tokens = 0

    def embed(self) -> Tensor:
        """The embeddings [n, D], without a graph."""
        keep = self.keep_graph and torch.is_grad_enabled()
        with torch.set_grad_enabled(keep):
            parts = self.chunks.map(self._encode)
        self._graphs = parts if keep else None
        self.encoded_tokens += self.chunks.tokens
        return self.chunks.join([part.detach() for part in parts])

    def backward(self, grad_nD: Tensor, reduction: GradientReduction | None = None) -> None:
        """Adds the parameter gradients of sum(embedding * grad) to `.grad`.

        Args:
            reduction: these gradients are the last of the step, and it is told of each as soon as it is complete.
        """
        if self._graphs is None:
            self.encoded_tokens += self.chunks.tokens
        graphs, self._graphs = self._graphs, None
        parameters = [p for p in self.encoder.parameters() if p.requires_grad]
        parts, workers = self.chunks.parts, self.chunks.workers
        sums = GradientSums(parameters, min(workers, len(parts)), reduction)

        def push(i: int, worker: int) -> None:
            out = self._encode(i, worker) if graphs is None else graphs[i]
            grad_BD = grad_nD[torch.from_numpy(parts[i]).to(grad_nD.device)]
            with sums.last(worker) if i + workers >= len(parts) else nullcontext():
                sums.add(worker, torch.autograd.grad(out, parameters, grad_BD, allow_unused=True))

        self.chunks.map(push)
        sums.into_grad()

    def _encode(self, i: int, worker: int) -> Tensor:
        return self.chunks.encode(self.chunks.parts[i], self.keys, sparse_grad=True)
