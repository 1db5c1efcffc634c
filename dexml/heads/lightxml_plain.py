"""LightXML's plain mode: a linear one-vs-all classifier with bias on the text vector, for sets of fewer labels.

G texts of the global batch, B of this rank, S labels held here, D width of the text vector.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.data.dataset import Split
from dexml.heads.features import Positives, PreparedFeatures
from dexml.heads.group_search import best_of
from dexml.heads.lightxml import LightXML
from dexml.heads.rows import uniform_rows

CELLS = 1 << 22  # scores of a search at a time


class PlainLightXML(LightXML):
    """Mean BCE over all labels; the score is the probability."""

    def fit(self, split: Split) -> None:
        self._make()
        if self.cfg.lxml_prior:
            counts = torch.from_numpy(np.bincount(split.relevance.indices, minlength=self.n_labels)[self.held])
            self._begin_at(self.table("bias"), counts, int((np.diff(split.relevance.indptr) > 0).sum()))

    def _make(self) -> None:
        self.document, self.net = self._document(), nn.Module()
        self.net.document = self.document
        self.held = self._share(self.n_labels)
        size = self.document.size
        start = uniform_rows(self.held, size + 1, 1 / sqrt(size), self.cfg.seed)
        self._hold(self.n_labels, weight=start[:, :-1].clone(), bias=start[:, -1].clone())

    def _logits(self, z_BD: Tensor) -> Tensor:
        return F.linear(z_BD, self.table("weight"), self.table("bias"))

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        z_BD, positives, n_texts = self.vectors(z_BD, ready)[1], ready.positives, len(ready.batch.points)
        if not self.spread:
            z_BD = self.world.gather_rows_grad(z_BD, n_texts)
            positives = Positives.of(self.split, ready.batch.points)
        logit_BS = self._logits(z_BD)
        row, label = (torch.from_numpy(x).to(logit_BS.device) for x in (positives.rows, positives.ids))
        here = (label >= self.held.start) & (label < self.held.stop)
        # BCE is softplus(s) for every label, less s for the true ones
        total = F.softplus(logit_BS).sum() - logit_BS[row[here], label[here] - self.held.start].sum()
        return total / (n_texts * self.n_labels)

    @torch.no_grad()
    def best(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        step = max(1, CELLS // max(1, self.held.stop - self.held.start))
        label_S = torch.arange(self.held.start, self.held.stop, device=z_ND.device)
        parts = [
            best_of(label_S.expand(len(z_nD), -1), self._logits(self.vectors(z_nD)[1]).float().sigmoid(), k)
            for z_nD in z_ND.split(step)
        ]
        ids, scores = (torch.cat(side) for side in zip(*parts, strict=True))
        return self._merged(ids, scores, k)

    @torch.no_grad()
    def score(self, z_ND: Tensor, ids_NM: Tensor) -> Tensor:
        """[N, M] the probabilities of these labels; 0 for -1."""
        here = (ids_NM >= self.held.start) & (ids_NM < self.held.stop)
        columns = (ids_NM - self.held.start).clamp(0, max(0, self.held.stop - self.held.start - 1))
        found = self._logits(self.vectors(z_ND)[1]).float().sigmoid().gather(1, columns).where(here, 0.0)
        return found if self.spread else self.world.sum_(found)

    def write_structure(self, folder: Path) -> None:
        """Nothing: there are no clusters."""

    def read_structure(self, folder: Path) -> None:
        self._make()
