"""Heads that look at every token of a text, and the flat one of them: each label looks (`net: bilstm`).

N tokens of B texts, D width of a token's state, L outputs, S of them looked at, K places kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dexml.config import Config
from dexml.data.batching import Batch, Ints
from dexml.data.dataset import Split
from dexml.data.tokens import Tokens
from dexml.encoders.chunks import Chunks
from dexml.encoders.encode import evaluating
from dexml.evaluation.retrieval import BLOCK, Embedder, Embeddings, Finder, Lists, Predictions, Wanted
from dexml.heads.attention import groups
from dexml.heads.attentionloss import full_bce, tiles
from dexml.heads.attentionnet import AttentionNet, LabelwiseNet, SharedNet
from dexml.heads.attentionstart import TextStart, prior
from dexml.heads.features import FeatureHead, Positives, PreparedFeatures
from dexml.heads.group_search import best_of

Look = Callable[[Tensor, Ints, Ints], tuple[Tensor, Tensor]]
"""Of the states of some texts, their numbers and the tokens of each: the ids and scores of what they show."""


@dataclass(frozen=True)
class PreparedOutputs(PreparedFeatures):
    unknown: Positives
    """what a filter names for these points"""
    count: int
    """of pairs of a text and an output that is true or false, in the global batch"""

    @property
    def terms(self) -> int:
        return self.count


class AttentionHead(FeatureHead):
    """On the states of an encoder that gives one a token (`StateEncoder`)."""

    net: AttentionNet
    leaves_out_filtered = True

    @torch.no_grad()
    def fit_structure(self, embedder: Embedder) -> None:
        """With `query_init: texts`, queries start at the states of the training texts."""
        if self.cfg.query_init == "texts":
            start = TextStart(embedder, len(self.net.query))
            start.read(self.query_tokens, self.outputs())
            self.net.query.copy_(start.queries(self.net.query))

    def outputs(self) -> csr_matrix:
        """The outputs of the training points [points, L], as the network numbers them."""
        return self.split.relevance

    @abstractmethod
    def best(self, z_ND: Tensor, k: int, lengths: Ints | None = None) -> tuple[Tensor, Tensor]:
        """As every head's; `lengths` [B] are the tokens of each text, one by default."""

    def retriever(self, embedder: Embedder) -> Finder:
        return StateFinder(embedder, self)


class FlatAttention(AttentionHead):
    """Every label looks at every text, in training and in search."""

    def fit(self, split: Split) -> None:
        self.net = make_net(self.cfg, self.encoder.width, self.n_labels)
        self.net.start_rare(prior(split.relevance))

    def prepare(self, batch: Batch) -> PreparedOutputs:
        ready = super().prepare(batch)
        count = len(batch.points) * self.n_labels - len(Positives.unknown(self.split, batch.points).ids)
        return PreparedOutputs(**vars(ready), unknown=Positives.unknown(self.split, ready.points), count=count)

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        assert isinstance(ready, PreparedOutputs)
        cells = ready.positives, ready.unknown
        total = full_bce(self.net, z_BD, ready.queries.chunks.sizes, *cells, self.cfg.tile_cols)
        return total / max(1, ready.count)

    def best(self, z_ND: Tensor, k: int, lengths: Ints | None = None) -> tuple[Tensor, Tensor]:
        return full_best(self.net, z_ND, np.ones(len(z_ND), np.int64) if lengths is None else lengths, k)

    def write_structure(self, folder: Path) -> None: ...

    def read_structure(self, folder: Path) -> None:
        self.net = make_net(self.cfg, self.encoder.width, self.n_labels)


def make_net(cfg: Config, width: int, n_outputs: int) -> AttentionNet:
    """A new network of the kind that a config names."""
    if cfg.attention_output == "lwan":
        return LabelwiseNet(n_outputs, width)
    return SharedNet(n_outputs, width, layer_sizes(cfg))


def layer_sizes(cfg: Config) -> list[int]:
    return [int(size) for size in cfg.linear_size.split(",") if size]


def full_best(net: AttentionNet, states_ND: Tensor, lengths: Ints, k: int) -> tuple[Tensor, Tensor]:
    """The k outputs of the highest probability of each text, of equals the smaller: ids [B, K], probabilities."""
    n_outputs = len(net.tables[0])
    k = min(k, n_outputs)
    ids_BK = torch.zeros(len(lengths), k, dtype=torch.int64, device=states_ND.device)
    scores_BK = states_ND.new_zeros(len(lengths), k)
    for texts, layout in groups(lengths):
        states_BTD, mask_BT = layout.take(states_ND), layout.mask.to(states_ND.device)
        values_BTF = net.values(states_BTD)
        ids = torch.empty(len(texts), 0, dtype=torch.int64, device=states_ND.device)
        scores = states_ND.new_empty(len(texts), 0)
        for outputs in tiles(n_outputs, layout, n_outputs):
            rows = [table[outputs] for table in net.tables]
            found = net.logits(states_BTD, values_BTF, mask_BT, *rows).sigmoid()
            here = torch.arange(outputs.start, outputs.stop, device=ids.device).expand(len(texts), -1)
            ids, scores = best_of(torch.cat([ids, here], 1), torch.cat([scores, found], 1), k)
        at = torch.from_numpy(texts).to(ids.device)
        ids_BK[at], scores_BK[at] = ids, scores
    return ids_BK, scores_BK


class StateFinder(Finder):
    """What a head finds in the states of texts, which are never held for more than a chunk of them."""

    def __init__(self, embedder: Embedder, head: AttentionHead) -> None:
        super().__init__(embedder, head.n_labels)
        self.head = head

    def search(self, tokens: Tokens, rows: Ints, k: int, filters: csr_matrix | None = None) -> Predictions:
        wanted = Wanted(self, k, filters)
        blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        return wanted.finish([self._block(tokens, block, wanted.fetch) for block in blocks])

    def _block(self, tokens: Tokens, rows: Ints, k: int) -> Lists:
        found = self.mine(tokens, rows[self.world.span(len(rows))], k)
        ids, scores = (self.world.gather_rows(x, len(rows)) for x in found)
        return ids.cpu().numpy(), scores.cpu().numpy()

    def mine(self, tokens: Tokens, rows: Ints, k: int) -> tuple[Tensor, Tensor]:
        """Lists of texts, without the other ranks: ids and scores [n, K], padded with -1 and -inf."""
        return self.through(tokens, rows, k, lambda z_ND, part, lengths: self.head.best(z_ND, k, lengths))

    def through(self, tokens: Tokens, rows: Ints, k: int, look: Look) -> tuple[Tensor, Tensor]:
        """Encodes texts chunk by chunk and looks at the states of each."""
        chunks = Chunks(self.embedder.encoder, *tokens.gather(rows), tokens.pad_id, *self.embedder.limits)
        device = self.world.device
        ids = torch.full((len(rows), k), -1, dtype=torch.int64, device=device)
        scores = torch.full((len(rows), k), -torch.inf, device=device)

        def find(i: int, worker: int) -> None:
            part = chunks.parts[i]
            found, value = look(chunks.encode(part), part, chunks.sizes[part])
            at = torch.from_numpy(part).to(device)
            ids[at, : found.shape[1]], scores[at, : found.shape[1]] = found, value.float()
            self.embedder.advance(len(part))

        with evaluating(self.embedder.encoder):
            chunks.map(find)
        return ids, scores

    def search_vectors(self, query_ND: Embeddings, k: int) -> Lists:
        raise TypeError("labels that look at every token cannot be found by one vector a text")
