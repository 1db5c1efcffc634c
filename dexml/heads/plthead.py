"""What probabilistic label trees have in common, whatever scores a node (arXiv 2009.11218, 1810.11671).

A node's scorer tells the probability that some label under it is relevant, given that one under its parent is. The
probability of a label is the product on its path. A text trains the nodes on the paths to its labels and their other
children; its loss is minus the log-likelihood of what they are.

B texts of this rank, N searched for, P pairs of text and node, V nodes, K places.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.data.batching import Batch, Ints
from dexml.data.dataset import Split
from dexml.evaluation.propensity import inverse_propensity, propensity_constants
from dexml.heads.features import FeatureHead, Positives, PreparedFeatures
from dexml.heads.plttree import tree_of
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


class TreeHead(FeatureHead):
    """Node-wise logistic losses; exact or beam search. A subclass makes what scores nodes, and scores them.

    What texts are searched by, `z`, is a vector of each [N, D], or the states of their tokens with the `lengths` [N].
    """

    leaves_out_filtered = True

    def fit(self, split: Split) -> None:
        self._make(tree_of(self.cfg, split, self.tokens, self.world))
        self._start(split)
        if self.cfg.plt_weights == "propensity":
            self.net.label_weight.copy_(torch.from_numpy(self._propensities(split)))  # type: ignore[operator]

    def _make(self, tree: LabelTree) -> None:
        self.tree = tree
        self._make_scorer()
        self.net.register_buffer("label_weight", torch.ones(tree.n_labels))

    @abstractmethod
    def _make_scorer(self) -> None:
        """Makes `net` and `own` for the nodes of `tree`."""

    @abstractmethod
    def _start(self, split: Split) -> None:
        """Sets scores to how often nodes are true among the training points."""

    @abstractmethod
    def _conditionals(self, z: Tensor, lengths: Ints | None, texts: slice) -> Conditionals:
        """Of some of the texts."""

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

    # --- prediction ---

    def best(self, z: Tensor, k: int, lengths: Ints | None = None) -> tuple[Tensor, Tensor]:
        parts = [found.lists(k) for found in self.found(z, k, lengths)]
        ids, log_values = (torch.cat(side) for side in zip(*parts, strict=True))
        return ids, log_values.exp().where(ids >= 0, -torch.inf)

    def found(self, z: Tensor, k: int, lengths: Ints | None = None) -> Iterator[Found]:
        """What the configured search finds, block by block."""
        tree, beam, search = self.tree, self.cfg.plt_beam, self._search
        widest = max(tree.max_width(depth) for depth in range(tree.height))
        at_once = max(1, PAIRS // min(tree.n_nodes, beam * widest or tree.n_nodes))
        n_texts = len(z) if lengths is None else len(lengths)
        for first in range(0, n_texts, at_once):
            stop = min(first + at_once, n_texts)
            known, n = self._conditionals(z, lengths, slice(first, stop)), stop - first
            yield search.beam(known, n, k, beam) if beam else search.exact(known, n, k)

    @torch.no_grad()
    def probable(self, z: Tensor, k: int, lengths: Ints | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The labels of `best`, and bounds [N] of the probability of each other label and of their sum."""
        found = list(self.found(z, k, lengths))
        ids, largest, mass = (
            torch.cat(part)
            for part in zip(*((f.lists(k)[0], f.omitted_max, f.omitted_mass) for f in found), strict=True)
        )
        return ids, largest, mass

    @torch.no_grad()
    def score(self, z: Tensor, ids_NK: Tensor, lengths: Ints | None = None) -> Tensor:
        """[N, K] the probabilities of these labels, exact; 0 for -1."""
        known = self._conditionals(z, lengths, slice(0, len(ids_NK)))
        return self._search.log_marginals(known, ids_NK).exp()

    @cached_property
    def _search(self) -> TreeSearch:
        weights = self.net.label_weight.double().cpu().numpy()  # type: ignore[operator]
        return TreeSearch(self.tree, weights, self.cfg.plt_threshold, next(self.encoder.parameters()).device)

    # --- bundles ---

    def write_structure(self, folder: Path) -> None:
        self.tree.save(folder / TREE)

    def read_structure(self, folder: Path) -> None:
        self._make(LabelTree.load(folder / TREE))
