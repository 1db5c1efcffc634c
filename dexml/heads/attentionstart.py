"""Where label-wise attention starts: queries at the texts of their outputs, logits at how rare true ones are.

Queries drawn at random see the mean of a text, all the same one, and a shared MLP can tell no output from another until
they have moved; an output has few points to move it. A mean of its texts' states tells it from others at once.

N tokens of all texts, D width of a state, L outputs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dexml.data.batching import Ints
from dexml.data.tokens import Tokens
from dexml.encoders.chunks import Chunks
from dexml.encoders.encode import evaluating
from dexml.evaluation.retrieval import Embedder
from dexml.training.progress import bar

SPREAD = 0.5  # of scores at the start; with 1 attention is soon too sure to learn on, with less it begins later


def prior(relevance: csr_matrix) -> float:
    """The log odds of a true cell, among the points that have one."""
    cells = max(1, int(np.count_nonzero(np.diff(relevance.indptr)))) * relevance.shape[1]
    share = min(max(relevance.nnz, 1), cells - 0.5) / cells
    return math.log(share / (1 - share))


class TextStart:
    """Queries of `n` outputs from the mean states of their texts, without the mean of all texts.

    All have one length: the scores of the tokens of a text have this spread then, over all outputs and texts.
    """

    def __init__(self, embedder: Embedder, n: int) -> None:
        self.embedder = embedder
        weight = next(embedder.encoder.parameters())
        self.sum_LD = weight.new_zeros(n, embedder.encoder.width)
        """of the mean states of an output's texts"""
        self.spread_DD = weight.new_zeros(embedder.encoder.width, embedder.encoder.width)
        """summed over tokens, of states about the mean of their text"""
        self.total_D, self.tokens = weight.new_zeros(embedder.encoder.width), weight.new_zeros(())
        """the mean states summed, and the number of tokens"""

    @torch.no_grad()
    def read(self, tokens: Tokens, relevance: csr_matrix) -> None:
        """Adds the texts that have outputs; `relevance` [texts, L]. Each rank reads its part, all know the sums."""
        embedder, world = self.embedder, self.embedder.world
        rows = np.flatnonzero(np.diff(relevance.indptr))
        mine = rows[world.span(len(rows))]
        chunks = Chunks(embedder.encoder, *tokens.gather(mine), tokens.pad_id, *embedder.limits)
        with evaluating(embedder.encoder), bar("label queries", len(mine), world.is_main) as advance:
            for part in chunks.parts:
                self._add(chunks.encode(part), chunks.sizes[part], relevance[mine[part]])
                advance(len(part))
        for x in (self.sum_LD, self.spread_DD, self.total_D, self.tokens):
            world.sum_(x)
        counts = np.bincount(relevance.indices, minlength=relevance.shape[1])
        self.texts, self.count_L = len(rows), torch.from_numpy(counts).to(self.sum_LD)

    def _add(self, state_ND: Tensor, lengths: Ints, relevance: csr_matrix) -> None:
        size_B = torch.from_numpy(lengths).to(state_ND.device)
        text_N = torch.repeat_interleave(torch.arange(len(lengths), device=state_ND.device), size_B)
        mean_BD = state_ND.new_zeros(len(lengths), state_ND.shape[1]).index_add_(0, text_N, state_ND) / size_B[:, None]
        about_ND = state_ND - mean_BD[text_N]
        self.spread_DD += about_ND.T @ about_ND
        self.total_D += mean_BD.sum(0)
        self.tokens += len(text_N)
        cells = relevance.tocoo()
        text, output = (torch.from_numpy(x.astype(np.int64)).to(state_ND.device) for x in (cells.row, cells.col))
        self.sum_LD.index_add_(0, output, mean_BD[text])

    def queries(self, like_LD: Tensor) -> Tensor:
        """[L, D]; those of outputs without texts are the rows of `like_LD`."""
        apart_LD = self.sum_LD - self.count_L[:, None] * (self.total_D / max(1, self.texts))
        length_L = apart_LD.norm(dim=1, keepdim=True)
        known = length_L > 1e-6 * length_L.max()
        unit_LD = (apart_LD / length_L.where(known, 1)).where(known, 0)
        variance = (self.spread_DD * (unit_LD.T @ unit_LD)).sum() / (self.tokens * known.sum())
        return (unit_LD * (SPREAD / variance.sqrt())).where(known & (variance > 0), like_LD.to(unit_LD))
