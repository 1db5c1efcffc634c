"""Multi-Head Encoding (arXiv 2412.10182): labels are codes of several digits, a short classifier for each.

What the kinds share: the codes, and the border between label ids outside and codes inside.

B texts of this rank, N texts searched for, D width of the text vector.
"""

from __future__ import annotations

from abc import abstractmethod
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexml.data.dataset import Split
from dexml.heads.candidates import Groups, Truth
from dexml.heads.features import FeatureHead, Positives
from dexml.heads.label_codes import LabelCodes
from dexml.heads.mhe_codes import make_codes
from dexml.heads.structure import Belonging

CODES = "label_codes.safetensors"


class MultiHead(FeatureHead):
    """A subclass builds its modules for the codes, gives a loss of codes and finds codes."""

    def fit(self, split: Split) -> None:
        self.codes = make_codes(self.cfg, split, self.tokens, self.encoder.width, self.world)
        loss_kind = self.cfg.mhe_loss
        if loss_kind == "auto":
            single = (np.diff(split.relevance.indptr) <= 1).all()
            loss_kind = "softmax" if single or self.cfg.mhe_kind == "sampling" else "bce"
        self._build(loss_kind)

    def read_structure(self, folder: Path) -> None:
        self.codes = LabelCodes.load(folder / CODES)
        self._build(self.codes.meta["loss"])

    def write_structure(self, folder: Path) -> None:
        self.codes.with_meta(loss=self.loss_kind).save(folder / CODES)

    def _build(self, loss_kind: str) -> None:
        self.loss_kind = loss_kind
        self.build()
        self.net.add_module("codes", Belonging(self.codes))

    @abstractmethod
    def build(self) -> None:
        """Makes `net`, and tables of `own`; random numbers are seeded."""

    @abstractmethod
    def best_codes(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best codes of each text [N, k] and their scores, of equals the smaller; -1 and -inf at the end."""

    def best(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        codes, scores = self.best_codes(z_ND, k)
        return torch.from_numpy(self.codes.labels(codes.cpu().numpy())).to(codes.device), scores

    def first_digits(self) -> Groups:
        """The labels of each first digit, codes being the places."""
        place = torch.arange(prod(self.codes.lengths), device=self.world.device).view(self.codes.lengths[0], -1)
        return Groups.of(place.where(place < self.n_labels, -1), self.n_labels)

    def truth(self, positives: Positives) -> Truth:
        """Positives as codes, ascending for each text."""
        n = len(positives.indptr) - 1
        row, code = np.repeat(np.arange(n), np.diff(positives.indptr)), self.codes.code_of[positives.ids]
        code = code[np.lexsort((code, row))]
        return Truth(torch.from_numpy(row).to(self.world.device), torch.from_numpy(code).to(self.world.device), n)
