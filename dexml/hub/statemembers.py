"""Members whose labels look at every token of a text: flat label-wise attention, AttentionXML down its levels, and
label trees of such nodes.

n texts, K labels of a text, T tokens, D width of a state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dexml.data.batching import Ints
from dexml.data.tokens import TextTokens, Tokens
from dexml.encoders.encoder import Encoder
from dexml.evaluation.gains import Floats
from dexml.evaluation.topk import Ids
from dexml.evaluation.uncertainty_texts import Listed
from dexml.heads.attention import groups
from dexml.heads.attentionhead import StateFinder
from dexml.heads.attentionxml import NextLevel
from dexml.heads.plt_labelwise import LabelwisePLT


class StateMember:
    """Texts stay tokens, which are read anew by `find` and `score`: their states are too large to be kept."""

    def __init__(self, encoder: Encoder, finder: StateFinder) -> None:
        self.encoder, self.finder = encoder, finder

    def encode(self, texts: Sequence[str]) -> TextTokens:
        return TextTokens(texts, self.encoder.tokenizer, self.encoder.max_len)

    def find(self, encoded: TextTokens, k: int) -> Listed:
        """The last of a list bounds the rest, but for labels under clusters that a text did not go on with."""
        found = self.finder.search(encoded, np.arange(len(encoded)), k)
        p = np.where(found.ids >= 0, found.scores, 0.0).astype(np.float64)
        left = self.finder.n_items - (found.ids >= 0).sum(axis=1)
        largest = np.maximum(p[:, -1], dropped(self.finder, encoded))
        return Listed(found.ids, p, largest * (left > 0), largest * left)

    def score(self, encoded: TextTokens, ids: Ids) -> Floats:
        return np.where(ids >= 0, probabilities(self.finder, encoded, ids.clip(0)), 0.0)


class TreeStateMember(StateMember):
    """A label tree, which knows what its search has left out."""

    def __init__(self, encoder: Encoder, finder: StateFinder, head: LabelwisePLT) -> None:
        super().__init__(encoder, finder)
        self.head = head

    def find(self, encoded: TextTokens, k: int) -> Listed:
        rows = np.arange(len(encoded))
        largest, mass = np.zeros((2, len(rows)))

        def look(z: Tensor, part: Ints, lengths: Ints) -> tuple[Tensor, Tensor]:
            ids, most, total = self.head.probable(z, k, lengths)
            largest[part], mass[part] = most.cpu().numpy(), total.cpu().numpy()
            return ids, self.head.score(z, ids, lengths)

        ids, p = (x.cpu().numpy() for x in self.finder.through(encoded, rows, k, look))
        return Listed(ids, np.where(ids >= 0, p, 0.0).astype(np.float64), largest, mass)

    def score(self, encoded: TextTokens, ids: Ids) -> Floats:
        def look(z: Tensor, part: Ints, lengths: Ints) -> tuple[Tensor, Tensor]:
            wanted = torch.from_numpy(ids[part]).to(z.device)
            return wanted, self.head.score(z, wanted, lengths)

        return self.finder.through(encoded, np.arange(len(ids)), ids.shape[1], look)[1].double().cpu().numpy()


def dropped(finder: StateFinder, tokens: Tokens) -> Floats:
    """[n] no label under a cluster that was left out, on any level, has a higher probability."""
    head = finder.head
    if not isinstance(head, NextLevel):
        return np.zeros(len(tokens))
    above = dropped(head.above, tokens)
    if head.beam == len(head.below.first):
        return above
    _, kept = head.above.mine(tokens, np.arange(len(tokens)), head.beam)
    return np.maximum(kept[:, -1].clamp(min=0).double().cpu().numpy(), above)


@torch.no_grad()
def probabilities(finder: StateFinder, tokens: Tokens, ids: Ids) -> Floats:
    """[n, K] of the labels `ids` [n, K] of each text, on the whole way down to them."""
    head = finder.head
    nodes = head.number[ids] if isinstance(head, NextLevel) else ids

    def look(z: Tensor, part: Ints, lengths: Ints) -> tuple[Tensor, Tensor]:
        wanted = torch.from_numpy(nodes[part]).to(z.device)
        return wanted, head_probabilities(finder, z, lengths, wanted)

    own = finder.through(tokens, np.arange(len(nodes)), nodes.shape[1], look)[1].double().cpu().numpy()
    return own * probabilities(head.above, tokens, head.parent[nodes]) if isinstance(head, NextLevel) else own


def head_probabilities(finder: StateFinder, z: Tensor, lengths: Ints, nodes_BK: Tensor) -> Tensor:
    """[B, K] of outputs of one network, for texts whose states lie end to end."""
    net = finder.head.net
    p = z.new_empty(nodes_BK.shape)
    for texts, layout in groups(lengths):
        at = torch.from_numpy(texts).to(z.device)
        states_BTD = layout.take(z)
        rows = [table[nodes_BK[at]] for table in net.tables]
        p[at] = net.logits(states_BTD, net.values(states_BTD), layout.mask.to(z.device), *rows).sigmoid()
    return p
