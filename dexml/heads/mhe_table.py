"""Heads with a vector for every label, in the order of the codes, on every rank or a range of groups on each.

R texts that this rank scores: its own part of the global batch, or all of it with its own labels. P rows of a table,
L labels, d their width, N texts searched for.
"""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from dexml.config import ConfigError
from dexml.distributed import RowTable, World
from dexml.heads.candidates import Candidates, Truth, dots, top
from dexml.heads.features import Positives, PreparedFeatures
from dexml.heads.mhe import MultiHead
from dexml.heads.rows import random_rows


class TableNet(nn.Module):
    labels: Parameter
    """[L, d], unless every rank has a part in `own`"""


class TableHead(MultiHead):
    """Groups are the first digit: codes are places of `Groups`."""

    net: TableNet

    def _build(self, loss_kind: str) -> None:
        if self.codes.n_heads != 2:
            raise ConfigError(f"mhe_kind {self.cfg.mhe_kind} has two heads: give two lengths or mhe_groups")
        if loss_kind not in ("softmax", "bce"):
            raise ConfigError(f"mhe_loss {loss_kind} is for mhe_kind product: take softmax or bce")
        n_groups, width = self.codes.lengths
        self.groups = self.first_digits()
        self.sharded = self.cfg.mhe_table == "sharded"
        self.spread = not self.sharded
        span = self.world.span(n_groups) if self.sharded else slice(0, n_groups)
        self.span = slice(*(min(group * width, self.n_labels) for group in (span.start, span.stop)))
        """places of the labels that this rank holds"""
        super()._build(loss_kind)

    def make_table(self, width: int, std: float) -> None:
        """Rows drawn from a normal distribution, the same however they are shared out."""
        rows_PD = random_rows(self.span, width, self.cfg.seed) * (std * sqrt(width))
        if self.sharded:
            n_groups, length = self.codes.lengths
            span = self.world.span(n_groups)
            pads = (span.stop - span.start) * length - len(rows_PD)
            self.own = {"labels": Parameter(F.pad(rows_PD, (0, 0, 0, pads)).view(-1, length, width))}
            self.sizes = {"labels": n_groups}
        else:
            self.net.labels = (RowTable if self.cfg.optim == "lazyadam" else Parameter)(rows_PD)

    def set_table(self, rows_LD: Tensor) -> None:
        self.table_PD.copy_(rows_LD[self.span])

    @property
    def table_PD(self) -> Tensor:
        """Vectors of the labels at the places of `span`."""
        if not self.sharded:
            return self.net.labels
        return self.own["labels"].flatten(0, 1)[: self.span.stop - self.span.start]

    def dots(self, query_RD: Tensor, place_RM: Tensor) -> Tensor:
        """Inner products [n] with the rows at the real places, text by text."""
        if self.sharded or not isinstance(self.net.labels, RowTable):
            return dots(query_RD, self.table_PD, place_RM)
        real = place_RM >= 0
        rows, at = place_RM[real].unique(return_inverse=True)
        table = F.embedding(rows, self.net.labels, sparse=True)
        return dots(query_RD, table, torch.full_like(place_RM, -1).masked_scatter(real, at))

    # --- which texts this rank scores ---

    @property
    def peers(self) -> World:
        """The ranks that score the same texts as this one."""
        return self.world if self.sharded else World(device=self.world.device)

    def scored(self, x_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        """What this rank needs of R texts; gradients find back."""
        return self.peers.gather_rows_grad(x_BD, len(ready.batch.points))

    def scored_truth(self, ready: PreparedFeatures) -> Truth:
        if not self.sharded:
            return self.truth(ready.positives)
        return self.truth(Positives.of(self.split, ready.batch.points))

    def here(self, found: Candidates) -> tuple[Candidates, Tensor]:
        """The part that this rank scores, at rows of its table, and how many there are on all ranks."""
        terms = found.real.sum()
        if not self.sharded:
            return found, self.world.sum_(terms)
        return found.within(self.span.start, self.span.stop), terms

    def merged(self, codes_NK: Tensor, scores_NK: Tensor) -> tuple[Tensor, Tensor]:
        """The best of what the ranks that hold the table have found."""
        codes, scores = (self.peers.gather(x).movedim(0, 1).flatten(1) for x in (codes_NK, scores_NK))
        at = top(scores, codes_NK.shape[1], codes)
        return codes.gather(1, at), scores.gather(1, at)
