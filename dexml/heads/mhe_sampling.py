"""Multi-Head Sampling: a one-vs-all classifier that is trained on the labels of a few groups at a time.

It saves time in training, not parameters. Which groups a text is compared with depends on (seed, epoch, text) alone.

R texts that this rank scores, K groups, M compared labels of a text, N texts searched for.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dexml.data.batching import Ints, hash64
from dexml.distributed import RowTable
from dexml.heads.candidates import Candidates, Truth, bce_sum, candidates, top
from dexml.heads.features import Positives, PreparedFeatures
from dexml.heads.mhe_losses import NOWHERE, decoupled_loss
from dexml.heads.mhe_table import TableHead, TableNet

CELLS = 1 << 24  # scores of a search at a time


class SamplingNet(TableNet):
    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, narrow) if narrow else nn.Identity()


class Sampling(TableHead):
    net: SamplingNet

    def build(self) -> None:
        width = self.cfg.mhe_dim or self.encoder.width
        self.net = SamplingNet(self.encoder.width, self.cfg.mhe_dim)
        self.make_table(width, 0.01)

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        query_RD = self.scored(self.net.narrow(self.dropped(z_BD, ready)), ready)
        truth = self.scored_truth(ready)
        found, terms = self.here(self._compared(truth, ready))
        logit_RM = query_RD.new_full(found.place.shape, NOWHERE)
        if self.cfg.mhe_scope == "batch" and len(query_RD):  # all texts with the same labels
            rows = F.embedding(found.place[0].clamp(min=0), self.table_PD, sparse=isinstance(self.table_PD, RowTable))
            logit_RM = (query_RD @ rows.T).where(found.real, NOWHERE)
        else:
            logit_RM = logit_RM.masked_scatter(found.real, self.dots(query_RD, found.place))
        if self.loss_kind == "bce":
            return bce_sum(logit_RM[found.real], found.targets) / terms
        n_positives = truth.row.bincount(minlength=truth.n_rows)
        return decoupled_loss(logit_RM, found.target, n_positives, self.peers) / len(ready.batch.points)

    def _compared(self, truth: Truth, ready: PreparedFeatures) -> Candidates:
        if self.cfg.mhe_scope == "batch":
            of_batch = self.truth(Positives.of(self.split, ready.batch.points)).place // self.groups.width
            chosen = of_batch.unique().expand(truth.n_rows, -1)
        else:
            points = ready.batch.points if self.sharded else ready.points
            n = 0 if self.cfg.mhe_scope == "own" else self.cfg.mhe_sampled
            true = truth.groups(self.groups).cpu().numpy()
            chosen = torch.from_numpy(sampled_groups(true, points, n, self.cfg.seed, ready.batch.epoch))
        return candidates(self.groups, chosen.to(self.world.device), truth, "drop")

    @property
    def score_tau(self) -> float | None:
        return 1.0 if self.loss_kind == "softmax" else None

    def best_codes(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Among all labels, a tile of them at a time."""
        query_ND = self.net.narrow(z_ND)
        codes = torch.full((len(z_ND), k), -1, device=z_ND.device)
        scores = torch.full(codes.shape, -torch.inf, device=z_ND.device)
        step = max(1, CELLS // max(1, len(z_ND)))
        for first in range(0, len(self.table_PD), step):
            found = query_ND @ self.table_PD[first : first + step].T
            here = torch.arange(first, first + found.shape[1], device=z_ND.device) + self.span.start
            both = torch.cat([scores, found.float()], 1), torch.cat([codes, here.expand(len(codes), -1)], 1)
            at = top(both[0], k, both[1])
            scores, codes = both[0].gather(1, at), both[1].gather(1, at)
        codes, scores = self.merged(codes, scores)
        return codes, scores.sigmoid().where(codes >= 0, -torch.inf) if self.loss_kind == "bce" else scores


def sampled_groups(true_RK: NDArray[np.bool_], points: Ints, n: int, seed: int, epoch: int) -> Ints:
    """The true groups of every text and random others up to n, none twice; -1 where a text has fewer than another.

    Args:
        points: [R], the numbers of the texts, which choose the random groups.
    """
    priority = hash64(seed, epoch, points[:, None], np.arange(true_RK.shape[1]))
    order = np.lexsort((priority, ~true_RK))
    wanted = np.maximum(n, true_RK.sum(axis=1))
    order = order[:, : wanted.max(initial=1)]
    return np.where(np.arange(order.shape[1]) < wanted[:, None], order, -1)
