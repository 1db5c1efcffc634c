"""LightXML (arXiv 2101.03305): clusters of labels first, then the labels of the best clusters, trained end to end.

A generator scores K clusters of labels, a ranker the labels of the best b, true clusters forced in while training; the
loss is the mean BCE over clusters plus that over candidates. Negatives are as hard as the generator is good.

G texts of the global batch, B of this rank, K clusters of C places, D width of the text vector, d of label vectors.
"""

from __future__ import annotations

import logging
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from dexml.config import ConfigError
from dexml.data.batching import Ints
from dexml.data.dataset import Split
from dexml.heads.base import Groups as ParameterGroups
from dexml.heads.base import decayed, trained
from dexml.heads.candidates import Candidates, Groups, Truth, bce_sum, candidates, choose, dots
from dexml.heads.features import FeatureHead, Positives, PreparedFeatures
from dexml.heads.group_search import GroupSearch, best_of
from dexml.heads.lightxml_negatives import random_groups, random_labels
from dexml.heads.lightxml_net import Document
from dexml.heads.rows import uniform_rows
from dexml.heads.structure import Belonging, cached, facts_of, label_features
from dexml.heads.tree import LabelTree
from dexml.heads.treebuild import clustered_tree

log = logging.getLogger(__name__)
TREE = "tree.safetensors"


class LightXML(FeatureHead):
    """What both modes share: the text vectors, and tables of labels that every rank holds, or its span of."""

    document: Document

    @property
    def _width(self) -> int:
        """of a layer, or a part of the text"""
        return self.encoder.width // (self.cfg.doc_layers + self.cfg.pooled_segments)

    def _document(self) -> Document:
        return Document(self.cfg.doc_layers, self._width, self.cfg.lxml_se, self.cfg.lxml_tokens)

    def _share(self, rows: int) -> slice:
        """The rows of a label table that are held here."""
        self.spread = self.cfg.lxml_table == "replicated"
        return slice(0, rows) if self.spread else self.world.span(rows)

    def _hold(self, rows: int, **tables: Tensor) -> None:
        if self.spread:
            for name, values in tables.items():
                self.net.register_parameter(name, Parameter(values))
        else:
            self.own, self.sizes = {name: Parameter(x) for name, x in tables.items()}, dict.fromkeys(tables, rows)

    @torch.no_grad()
    def _begin_at(self, bias: Tensor, counts: Tensor, n_points: int) -> None:
        """Biases are the log odds of a label, or a cluster, that so many of the points have."""
        bias.copy_(((counts + 0.5) / (n_points + 1)).logit())

    def table(self, name: str) -> Tensor:
        return self.net.get_parameter(name) if self.spread else self.own[name]

    def vectors(self, z_BD: Tensor, ready: PreparedFeatures | None = None) -> tuple[Tensor, Tensor]:
        """The text vectors for clusters and for labels, dropped out by the same mask in training."""
        for_groups, for_labels = self.document(z_BD)
        if ready is None:
            return for_groups, for_labels
        dropped = self.dropped(for_labels, ready)
        return dropped if for_groups is for_labels else self.dropped(for_groups, ready), dropped

    def _merged(self, ids: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best k of what every rank has found [N, k] among the labels it holds."""
        if self.spread:
            return ids, scores
        all_ids, all_scores = (torch.cat(list(self.world.gather(x)), dim=1) for x in (ids, scores))
        return best_of(all_ids, all_scores, k)

    def param_groups(self) -> ParameterGroups:
        """What weighs layers and tokens learns as slowly as the encoder that it belongs to, without weight decay."""
        document = list(self.document.parameters())
        rest = [p for p in self.net.parameters() if all(p is not one for one in document)]
        return (
            decayed(trained(self.encoder), self.cfg, self.cfg.lr)
            + [{"params": document, "lr": self.cfg.lr, "weight_decay": 0.0}]
            + decayed(rest, self.cfg, self.head_lr)
            + decayed(self.own.values(), self.cfg, self.head_lr) * bool(self.own)
        )


class GroupedLightXML(LightXML):
    """Generator and ranker over clusters."""

    def fit(self, split: Split) -> None:
        self._make(self._tree(split))
        lost = int((self.groups.place_of < 0).sum())
        if lost:
            log.warning("%d of %d labels are in no cluster: they are neither trained nor found", lost, self.n_labels)
        if self.cfg.lxml_prior:
            labelled = np.flatnonzero(np.diff(split.relevance.indptr))
            truth = self._truth(Positives.of(split, labelled))
            cells = torch.unique(torch.stack([truth.row, truth.place // self.groups.width]), dim=1)
            self._begin_at(self.generator.bias, torch.bincount(cells[1], minlength=self.groups.count), len(labelled))

    def _tree(self, split: Split) -> LabelTree:
        cfg = self.cfg
        if cfg.lxml_tree:
            tree = LabelTree.load(cfg.lxml_tree)
            if tree.n_labels != self.n_labels:
                raise ConfigError(f"lxml_tree: {cfg.lxml_tree} has {tree.n_labels} labels, the data {self.n_labels}")
            return tree
        settings = {"size": cfg.lxml_cluster_size, "features": cfg.lxml_cluster_features, "seed": cfg.seed}

        def build() -> LabelTree:
            features = label_features(cfg.lxml_cluster_features, split, self.tokens)
            return clustered_tree(features, cfg.lxml_cluster_size, cfg.seed)

        return cached(
            self.world, cfg.data_dir, "clusters", facts_of(split, self.tokens, **settings), build, LabelTree.load
        )

    def _make(self, tree: LabelTree) -> None:
        self.tree, dim = tree, self.cfg.lxml_dim
        members = torch.from_numpy(tree.clusters.members).long().to(self.world.device)
        self.groups = Groups.of(members, self.n_labels)
        count, width = members.shape
        held = self._share(count)
        self.first = held.start
        size = self.cfg.doc_layers * self._width
        self.generator, self.ranker, self.document = nn.Linear(size, count), nn.Linear(size, dim), self._document()
        self.net = Belonging(tree)
        self.net.document, self.net.generator, self.net.ranker = self.document, self.generator, self.ranker
        places = slice(held.start * width, held.stop * width)
        start = uniform_rows(places, dim, sqrt(6 / (self.n_labels + dim)), self.cfg.seed)
        start[members.view(-1)[places].cpu() < 0] = 0
        self._hold(count, labels=start.view(-1, width, dim))

    @property
    def _rows(self) -> Tensor:
        """Label vectors [P, d] of the places of the clusters held here."""
        return self.table("labels").flatten(0, 1)

    # --- training ---

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        for_groups, for_labels = self._reached(*self.vectors(z_BD, ready))
        logit_BK, query_Bd = self.generator(for_groups), self.ranker(for_labels)
        true_BK = self._truth(ready.positives).groups(self.groups)
        chosen_Bb = choose(logit_BK, self.cfg.lxml_topb, true_BK)
        n_texts = len(ready.batch.points)
        group_loss = bce_sum(logit_BK, true_BK) / (n_texts * self.groups.count)
        return self._label_loss(query_Bd, chosen_Bb, ready) + self.cfg.lxml_group_weight * group_loss

    def _reached(self, for_groups: Tensor, for_labels: Tensor) -> tuple[Tensor, Tensor]:
        reach = self.cfg.lxml_encoder_grad
        return (
            for_groups.detach() if reach == "label_only" else for_groups,
            for_labels.detach() if reach == "group_only" else for_labels,
        )

    def _truth(self, positives: Positives) -> Truth:
        device = self.world.device
        return self.groups.truth(*(torch.from_numpy(x).to(device) for x in (positives.indptr, positives.ids)))

    def _label_loss(self, query: Tensor, chosen: Tensor, ready: PreparedFeatures) -> Tensor:
        """Of this rank's texts, or of all texts and the labels held here."""
        points, positives = ready.points, ready.positives
        if not self.spread:
            points, positives = ready.batch.points, Positives.of(self.split, ready.batch.points)
            query = self.world.gather_rows_grad(query, len(points))
            chosen = self.world.gather_rows(chosen, len(points))
        truth = self._truth(positives)
        found = candidates(self.groups, chosen, truth, self.cfg.lxml_overflow)
        if self.cfg.lxml_random_clusters or self.cfg.lxml_random_labels:
            found = self._with_random(found, chosen, truth, ready.batch.epoch, points)
        rows = self._rows
        found = found.within(self.first * self.groups.width, self.first * self.groups.width + len(rows))
        logits = dots(query, rows, found.place)
        count = self.world.sum_(torch.tensor(len(logits), device=logits.device))
        return bce_sum(logits, found.targets) / count

    def _with_random(self, found: Candidates, chosen: Tensor, truth: Truth, epoch: int, points: Ints) -> Candidates:
        cfg, groups = self.cfg, self.groups
        if cfg.lxml_random_clusters:
            taken = truth.groups(groups).scatter(1, chosen, True)
            drawn = random_groups(cfg.lxml_random_clusters, taken, cfg.seed, epoch, points)
            places = groups.places(drawn.clamp(min=0))
            found = found.plus(places.where((drawn >= 0).repeat_interleave(groups.width, dim=1), -1))
        if cfg.lxml_random_labels:
            found = found.plus(random_labels(cfg.lxml_random_labels, groups, found, cfg.seed + 1, epoch, points))
        return found

    # --- prediction ---

    @torch.no_grad()
    def best(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        for_groups, for_labels = self.vectors(z_ND)
        logit_NK, query_Nd = self.generator(for_groups), self.ranker(for_labels)
        search = GroupSearch(self.groups, self._rows, self.first)
        if self.cfg.lxml_exact:
            ids, scores = search.exact(logit_NK, query_Nd, k)
        else:
            ids, scores = search.best(logit_NK, query_Nd, self.cfg.lxml_topb, k)
        return self._merged(ids, scores, k)

    @torch.no_grad()
    def score(self, z_ND: Tensor, ids_NM: Tensor) -> Tensor:
        """[N, M] the probabilities of these labels; 0 for -1 and labels in no cluster."""
        for_groups, for_labels = self.vectors(z_ND)
        logit_NK, query_Nd, rows = self.generator(for_groups), self.ranker(for_labels), self._rows
        place = self.groups.place_of[ids_NM.clamp(min=0)].where(ids_NM >= 0, -1)
        begin = self.first * self.groups.width
        here = (place >= begin) & (place < begin + len(rows))
        found = torch.zeros(place.shape, device=place.device)
        found[here] = dots(query_Nd, rows, (place - begin).where(here, -1)).float().sigmoid()
        if not self.spread:
            self.world.sum_(found)
        return found * logit_NK.float().sigmoid().gather(1, place.clamp(min=0) // self.groups.width)

    # --- bundles ---

    def write_structure(self, folder: Path) -> None:
        self.tree.save(folder / TREE)

    def read_structure(self, folder: Path) -> None:
        self._make(LabelTree.load(folder / TREE))
