"""Multi-Head Cascade: groups of labels first, then the labels of the best groups, by short vectors.

For text this is LightXML (arXiv 2101.03305) with equal blocks of an order of the labels in place of learnt clusters.

B texts of this rank, R texts it scores, K groups, b of them opened, M candidates, N texts searched for, D width of the
text vector, d of label vectors, P positives.
"""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.config import ConfigError
from dexml.evaluation.retrieval import Embedder
from dexml.heads.candidates import Truth, bce_sum, candidates, choose, top
from dexml.heads.features import PreparedFeatures
from dexml.heads.group_search import GroupSearch
from dexml.heads.mhe_codes import CASCADE_DIM
from dexml.heads.mhe_losses import NOWHERE, softmax_loss
from dexml.heads.mhe_table import TableHead, TableNet

START = 1.0  # length of label vectors and group weights that start at texts
TEXTS = 4096  # label texts embedded at a time


class CascadeNet(TableNet):
    def __init__(self, width: int, n_groups: int, narrow: int) -> None:
        super().__init__()
        self.groups, self.narrow = nn.Linear(width, n_groups), nn.Linear(width, narrow)


class Cascade(TableHead):
    net: CascadeNet

    def build(self) -> None:
        width = self.cfg.mhe_dim or CASCADE_DIM
        self.net = CascadeNet(self.encoder.width, self.groups.count, width)
        self.make_table(width, sqrt(2 / (self.n_labels + width)))  # as wide as Xavier's

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        z_BD = self.dropped(z_BD, ready)
        logit_BK, query_RD = self.net.groups(z_BD), self.scored(self.net.narrow(z_BD), ready)
        mine, truth = self.truth(ready.positives), self.scored_truth(ready)
        if self.loss_kind == "softmax":
            total = softmax_loss([logit_BK], _groups(mine, self.groups.width)) + self._blocks(query_RD, truth)
            return total / len(ready.batch.points)
        group_loss = bce_sum(logit_BK, mine.groups(self.groups)) / (len(ready.batch.points) * self.groups.count)
        logit_RK = self.scored(logit_BK.detach(), ready)
        chosen = choose(logit_RK, self.cfg.mhe_open, truth.groups(self.groups))
        found, terms = self.here(candidates(self.groups, chosen, truth, self.cfg.mhe_overflow))
        return group_loss + bce_sum(self.dots(query_RD, found.place), found.targets) / terms

    def best_codes(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        logit_NK, query_ND = self.net.groups(z_ND), self.net.narrow(z_ND)
        if self.loss_kind == "softmax":
            return self.merged(*self._best_of_blocks(logit_NK, query_ND, k))
        search = GroupSearch(self.groups, self.table_PD, self.span.start // self.groups.width)
        if self.cfg.mhe_exact:
            return self.merged(*search.exact(logit_NK, query_ND, k))
        return self.merged(*search.best(logit_NK, query_ND, self.cfg.mhe_open, k))

    @torch.no_grad()
    def score(self, z_ND: Tensor, ids_NK: Tensor) -> Tensor:
        """[N, K] the probabilities of these labels, 0 for -1: of the group, times that of the label in its group.

        Raises:
            ConfigError: trained with softmax, which knows labels only beside others.
        """
        if self.loss_kind == "softmax":
            raise ConfigError("mhe_loss softmax gives no probability of each label on its own: train with bce")
        codes = torch.from_numpy(self.codes.code_of[ids_NK.clamp(min=0).cpu().numpy()]).to(ids_NK)
        here_NK = (codes >= self.span.start) & (codes < self.span.stop) & (ids_NK >= 0)
        logits = self.dots(self.net.narrow(z_ND), (codes - self.span.start).where(here_NK, -1))
        below = self.peers.sum_(z_ND.new_zeros(codes.shape).masked_scatter(here_NK, logits.sigmoid()))
        return below * self.net.groups(z_ND).sigmoid().gather(1, codes // self.groups.width)

    def _blocks(self, query_RD: Tensor, truth: Truth) -> Tensor:
        """Cross-entropy of every positive within its group, averaged over the positives of a text."""
        here = (truth.place >= self.span.start) & (truth.place < self.span.stop)
        row, place = truth.row[here], truth.place[here]
        logit_PC = self._block_logits(query_RD[row], place[:, None] // self.groups.width).squeeze(1)
        loss_P = F.cross_entropy(logit_PC, place % self.groups.width, reduction="none")
        return (loss_P / truth.row.bincount(minlength=truth.n_rows)[row]).sum()

    def _block_logits(self, query_PD: Tensor, group_Pb: Tensor) -> Tensor:
        """[P, b, C] of the labels of groups, `NOWHERE` where this rank has none."""
        place = self.groups.places(group_Pb)
        place = (place - self.span.start).where((place >= self.span.start) & (place < self.span.stop), -1)
        logit = query_PD.new_full(place.shape, NOWHERE)
        filled = logit.masked_scatter(place >= 0, self.dots(query_PD, place))
        return filled.unflatten(1, (group_Pb.shape[1], self.groups.width))

    def _best_of_blocks(self, logit_NK: Tensor, query_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """By the product of two softmaxes, among the groups of the largest logits."""
        opened = choose(logit_NK, self.groups.count if self.cfg.mhe_exact else self.cfg.mhe_open)
        above = logit_NK.log_softmax(1).gather(1, opened)
        score = (above[..., None] + self._block_logits(query_ND, opened).log_softmax(2)).flatten(1).exp()
        place = self.groups.places(opened)
        score = score.masked_fill((place < self.span.start) | (place >= self.span.stop), -torch.inf)
        at = top(score, k, place)
        missing = (0, k - at.shape[1])
        return F.pad(place.gather(1, at), missing, value=-1), F.pad(score.gather(1, at), missing, value=-torch.inf)

    # --- starting at the label texts ---

    @torch.no_grad()
    def fit_structure(self, embedder: Embedder) -> None:
        """Label vectors and groups start at texts: those of the labels, and the mean of a group's."""
        if self.cfg.mhe_init == "random":
            return
        tokens, like = self.tokens("labels"), self.net.groups.weight
        rows = torch.empty(self.n_labels, self.net.narrow.out_features).to(like)
        sums = torch.zeros_like(like)
        for first in range(0, self.n_labels, TEXTS):
            labels = self.codes.label_of[first : first + TEXTS]
            text_LD = torch.from_numpy(embedder.whole(tokens, labels)).to(like)
            rows[first : first + TEXTS] = self.net.narrow(text_LD)
            sums.index_add_(
                0, torch.arange(first, first + len(labels), device=like.device) // self.groups.width, text_LD
            )
        self.net.groups.weight.copy_(_apart(sums) * START)
        self.net.groups.bias.zero_()
        self.set_table(_apart(rows) * START)


def _apart(rows: Tensor) -> Tensor:
    """Unit rows, without the mean of all."""
    return F.normalize(rows - rows.mean(0), dim=1)


def _groups(truth: Truth, width: int) -> Truth:
    return Truth(truth.row, truth.place // width, truth.n_rows)
