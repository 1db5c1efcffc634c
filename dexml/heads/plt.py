"""Probabilistic label tree with a linear classifier on the text's vector at every node.

B texts of this rank, N searched for, P pairs of text and node, V nodes, S of this rank's range, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from dexml.data.batching import Ints
from dexml.data.dataset import Split
from dexml.distributed import RowTable
from dexml.heads.candidates import bce_sum, ragged_dots
from dexml.heads.features import PreparedFeatures
from dexml.heads.plthead import PreparedNodes, TreeHead
from dexml.heads.plttree import log_odds
from dexml.heads.structure import Belonging
from dexml.heads.tree_search import Conditionals


class PLT(TreeHead):
    """Node classifiers on every rank, or a range of them on each."""

    def _make_scorer(self) -> None:
        tree = self.tree
        self.net = Belonging(tree)
        self.spread = self.cfg.plt_table == "replicated"
        self.span = slice(0, tree.n_nodes) if self.spread else self.world.span(tree.n_nodes)
        """nodes whose classifiers are here"""
        weight = torch.zeros(self.span.stop - self.span.start, self.encoder.width)
        bias = Parameter(torch.zeros(len(weight)))
        if self.spread:
            sparse = self.cfg.optim == "lazyadam"
            self.net.weight, self.net.bias = RowTable(weight) if sparse else Parameter(weight), bias
        else:
            self.own = {"weight": Parameter(weight), "bias": bias}
            self.sizes = dict.fromkeys(self.own, tree.n_nodes)

    @torch.no_grad()
    def _start(self, split: Split) -> None:
        self._table["bias"].copy_(log_odds(self.tree, split, self.world)[self.span])

    @property
    def _table(self) -> dict[str, Parameter]:
        return self.own or dict(self.net.named_parameters())

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        assert isinstance(ready, PreparedNodes)
        indptr, nodes, target = (torch.from_numpy(x).to(z_BD.device) for x in ready.known)
        z_BD, n_texts = self.dropped(z_BD, ready), len(ready.batch.points)
        if not self.spread:
            z_BD = self.world.gather_rows_grad(z_BD, n_texts)
        here, scores = self._scores(z_BD, indptr, nodes)
        total = bce_sum(scores, target[here])
        if self.cfg.plt_loss == "per_doc":
            return total / n_texts
        return total / self.world.sum_(here.sum())

    def _scores(self, z_BD: Tensor, indptr: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Which pairs [P] of texts and nodes are of this rank's range, and the scores of these."""
        here = (nodes >= self.span.start) & (nodes < self.span.stop)
        own = nodes[here] - self.span.start
        begins = F.pad(here.cumsum(0), (1, 0))[indptr]
        weight: Tensor = self._table["weight"]
        bias = self._table["bias"][own]
        if isinstance(weight, RowTable):
            rows, own = own.unique(return_inverse=True)
            weight = F.embedding(rows, weight, sparse=True)
        return here, ragged_dots(z_BD, weight, begins, own) + bias

    def _conditionals(self, z: Tensor, lengths: Ints | None, texts: slice) -> Conditionals:
        z_ND = z[texts]

        def known(indptr: Tensor, nodes: Tensor) -> Tensor:
            here, scores = self._scores(z_ND, indptr, nodes)
            if self.spread:
                return F.logsigmoid(scores)
            return self.world.sum_(z_ND.new_zeros(len(nodes)).masked_scatter(here, F.logsigmoid(scores)))

        return known
