"""Probabilistic label tree: a linear classifier at every node of a tree of labels (arXiv 2009.11218, 1810.11671).

A node's classifier tells the probability that some label under it is relevant, given that one under its parent is. The
probability of a label is the product on its path. A text trains the nodes on the paths to its labels and their other
children; its loss is minus the log-likelihood of what they are.

G texts of the global batch, B of this rank, N texts searched for, P pairs of text and node, V nodes, S of this rank's
range, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from dexml.data.batching import Batch, Ints
from dexml.data.dataset import Split
from dexml.distributed import RowTable
from dexml.evaluation.propensity import inverse_propensity, propensity_constants
from dexml.heads.candidates import bce_sum, ragged_dots
from dexml.heads.features import FeatureHead, Positives, PreparedFeatures
from dexml.heads.plttree import log_odds, tree_of
from dexml.heads.structure import Belonging
from dexml.heads.tree import LabelTree
from dexml.heads.tree_search import Conditionals, Found, TreeSearch
from dexml.heads.treenodes import training_nodes

TREE = "tree.safetensors"
PAIRS = 1 << 22  # of texts and nodes, searched at a time


@dataclass(frozen=True)
class PreparedNodes(PreparedFeatures):
    """Nodes that texts train: those of this rank, or of the global batch where the table is sharded."""

    known: tuple[Ints, Ints, NDArray[np.bool_]]
    """indptr [n + 1], nodes [P] and whether each is true [P]"""
    per_term: bool
    """whether the loss is a mean over nodes, not texts"""

    @property
    def terms(self) -> int:
        return len(self.known[1]) if self.per_term else super().terms


class PLT(FeatureHead):
    """Node-wise logistic losses; exact or beam search."""

    leaves_out_filtered = True

    def fit(self, split: Split) -> None:
        self._make(tree_of(self.cfg, split, self.tokens, self.world))
        with torch.no_grad():
            self._table["bias"].copy_(log_odds(self.tree, split, self.world)[self.span])
            if self.cfg.plt_weights == "propensity":
                self.net.label_weight.copy_(torch.from_numpy(self._propensities(split)))  # type: ignore[operator]

    def _make(self, tree: LabelTree) -> None:
        self.tree, self.net = tree, Belonging(tree)
        self.net.register_buffer("label_weight", torch.ones(tree.n_labels))
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

    @property
    def _table(self) -> dict[str, Parameter]:
        return self.own or dict(self.net.named_parameters())

    def _propensities(self, split: Split) -> NDArray[np.float64]:
        counts = np.bincount(split.relevance.indices, minlength=self.n_labels)
        A, B, _ = propensity_constants(self.cfg.data_dir.name, self.cfg.propensity_A, self.cfg.propensity_B)
        return inverse_propensity(counts, int((np.diff(split.relevance.indptr) > 0).sum()), A, B)

    # --- training ---

    def prepare(self, batch: Batch) -> PreparedNodes:
        ready = super().prepare(batch)
        labels = ready.positives if self.spread else Positives.of(self.split, batch.points)
        unknown = Positives.unknown(self.split, ready.points if self.spread else batch.points)
        known = training_nodes(self.tree, labels.indptr, labels.ids, (unknown.indptr, unknown.ids))
        return PreparedNodes(**vars(ready), known=known, per_term=self.cfg.plt_loss == "per_term")

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

    # --- prediction ---

    def best(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        parts = [found.lists(k) for found in self.found(z_ND, k)]
        ids, log_values = (torch.cat(side) for side in zip(*parts, strict=True))
        return ids, log_values.exp().where(ids >= 0, -torch.inf)

    def found(self, z_ND: Tensor, k: int) -> Iterator[Found]:
        """What the configured search finds, block by block."""
        tree, beam, search = self.tree, self.cfg.plt_beam, self._search
        widest = max(tree.max_width(depth) for depth in range(tree.height))
        at_once = max(1, PAIRS // min(tree.n_nodes, beam * widest or tree.n_nodes))
        for z_nD in z_ND.split(at_once):
            known = self._conditionals(z_nD)
            yield search.beam(known, len(z_nD), k, beam) if beam else search.exact(known, len(z_nD), k)

    @torch.no_grad()
    def probable(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The labels of `best`, and bounds [N] of the probability of each other label and of their sum."""
        found = list(self.found(z_ND, k))
        ids, largest, mass = (
            torch.cat(part)
            for part in zip(*((f.lists(k)[0], f.omitted_max, f.omitted_mass) for f in found), strict=True)
        )
        return ids, largest, mass

    @torch.no_grad()
    def score(self, z_ND: Tensor, ids_NK: Tensor) -> Tensor:
        """[N, K] the probabilities of these labels, exact; 0 for -1."""
        return self._search.log_marginals(self._conditionals(z_ND), ids_NK).exp()

    @cached_property
    def _search(self) -> TreeSearch:
        weights = self.net.label_weight.double().cpu().numpy()  # type: ignore[operator]
        return TreeSearch(self.tree, weights, self.cfg.plt_threshold, next(self.encoder.parameters()).device)

    def _conditionals(self, z_ND: Tensor) -> Conditionals:
        def known(indptr: Tensor, nodes: Tensor) -> Tensor:
            here, scores = self._scores(z_ND, indptr, nodes)
            if self.spread:
                return F.logsigmoid(scores)
            return self.world.sum_(z_ND.new_zeros(len(nodes)).masked_scatter(here, F.logsigmoid(scores)))

        return known

    # --- bundles ---

    def write_structure(self, folder: Path) -> None:
        self.tree.save(folder / TREE)

    def read_structure(self, folder: Path) -> None:
        self._make(LabelTree.load(folder / TREE))
