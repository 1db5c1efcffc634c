"""Probabilistic label tree whose nodes look at every token of a text: label-wise attention and an MLP that they share.

All levels are trained at once with one encoder, where AttentionXML has a network of its own for each.

N tokens of B texts, P pairs of text and node, V nodes, S places for those of a text, D width of a token's state.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from dexml.data.batching import Ints
from dexml.data.dataset import Split
from dexml.heads.attention import Layout, groups
from dexml.heads.attentionhead import AttentionHead, layer_sizes
from dexml.heads.attentionnet import SharedNet
from dexml.heads.candidates import bce_sum
from dexml.heads.features import PreparedFeatures
from dexml.heads.plthead import PreparedNodes, TreeHead
from dexml.heads.plttree import node_counts, odds
from dexml.heads.structure import Belonging
from dexml.heads.tree_search import Conditionals

GROUP_TOKENS = 1024  # padded, of texts that are compared with their nodes together
PAIRS = 1 << 16  # padded, of texts and nodes whose queries are gathered together


class LabelwisePLT(TreeHead, AttentionHead):
    """A query for every node."""

    net: SharedNet

    def _make_scorer(self) -> None:
        sparse = self.cfg.optim == "lazyadam"
        self.net = SharedNet(self.tree.n_nodes, self.encoder.width, layer_sizes(self.cfg), sparse)
        self.net.belonging = Belonging(self.tree)

    def _start(self, split: Split) -> None:
        seen, true = node_counts(self.tree, split, self.world)
        self.net.start_rare(float(odds(seen.sum(), true.sum())))

    def outputs(self) -> csr_matrix:
        paths = self.tree.paths(np.arange(self.n_labels))
        label, depth = np.nonzero(paths >= 0)
        above = csr_matrix(
            (np.ones(len(label), np.float32), (label, paths[label, depth])), (self.n_labels, self.tree.n_nodes)
        )
        return csr_matrix((self.split.relevance.astype(bool).astype(np.float32) @ above).astype(bool))

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        assert isinstance(ready, PreparedNodes)
        indptr, nodes, target = (torch.from_numpy(x).to(z_BD.device) for x in ready.known)
        total = z_BD[:0].sum()  # a rank without texts takes part, too
        for pairs, scores in self._scores(z_BD, ready.queries.chunks.sizes, indptr, nodes):
            total = total + bce_sum(scores, target[pairs])
        if self.cfg.plt_loss == "per_doc":
            return total / len(ready.batch.points)
        return total / self.world.sum_(torch.tensor(len(nodes), device=z_BD.device))

    def _scores(
        self, states_ND: Tensor, lengths: Ints, indptr: Tensor, nodes: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Numbers and scores of pairs of texts and nodes, those of texts of similar length together."""
        for texts, layout in groups(lengths, GROUP_TOKENS):
            yield from self._group(states_ND, layout, torch.from_numpy(texts).to(nodes.device), indptr, nodes)

    def _group(
        self, states_ND: Tensor, layout: Layout, texts: Tensor, indptr: Tensor, nodes: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        states_BTD, mask_BT = layout.take(states_ND), layout.mask.to(nodes.device)
        values_BTF = self.net.values(states_BTD)
        count_B = indptr.diff()[texts]
        most, width = int(count_B.max()), max(1, PAIRS // len(texts))
        for first in range(0, most, width):
            place_S = torch.arange(first, min(first + width, most), device=nodes.device)
            real_BS = place_S < count_B[:, None]
            pair_BS = (indptr[texts][:, None] + place_S) * real_BS
            query_BSD = self.net.rows(nodes[pair_BS])
            yield pair_BS[real_BS], self.net.logits(states_BTD, values_BTF, mask_BT, query_BSD)[real_BS]

    def _conditionals(self, z: Tensor, lengths: Ints | None, texts: slice) -> Conditionals:
        assert lengths is not None
        ends = np.cumsum(lengths)
        first = int(ends[texts.start] - lengths[texts.start])
        states_ND, own = z[first : int(ends[texts.stop - 1])], lengths[texts]

        def known(indptr: Tensor, nodes: Tensor) -> Tensor:
            value = states_ND.new_empty(len(nodes))
            for pairs, scores in self._scores(states_ND, own, indptr, nodes):
                value[pairs] = F.logsigmoid(scores)
            return value

        return known
