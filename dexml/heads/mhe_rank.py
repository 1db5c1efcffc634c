"""Multi-Head Product of rank R: R groups of two heads, a label scores the sum over them of the product of its digits'.

One product cannot pair digits, several can: labels put together of digits of several positives need not score as high
as they do. The logits of a text are a matrix of rank R, of whose rows (first digits) training sees a few: those of the
positives, and those that could hold the largest logits.

B texts of this rank, N texts searched for, D width of the text vector, G rows of C labels, b of them opened,
M candidates of a text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.distributed import World
from dexml.heads.candidates import bce_sum, candidates, choose
from dexml.heads.code_search import rank_topk
from dexml.heads.features import PreparedFeatures
from dexml.heads.mhe import MultiHead
from dexml.heads.mhe_losses import NOWHERE, decoupled_loss


class RankedNet(nn.Module):
    def __init__(self, width: int, lengths: Sequence[int], rank: int) -> None:
        super().__init__()
        self.sizes = [rank * length for length in lengths]
        self.rank = rank
        self.heads = nn.Linear(width, sum(self.sizes))

    def forward(self, z_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Factors [B, R, G] of the first digits and [B, R, C] of the second."""
        first, second = self.heads(z_BD).split(self.sizes, dim=1)
        return first.unflatten(1, (self.rank, -1)), second.unflatten(1, (self.rank, -1))


class RankedProduct(MultiHead):
    net: RankedNet

    def build(self) -> None:
        self.groups = self.first_digits()
        self.net = RankedNet(self.encoder.width, self.codes.lengths, self.cfg.mhe_rank)

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        first, second = self.net(self.dropped(z_BD, ready))
        truth, bound_BG = self.truth(ready.positives), row_bounds(first.detach(), second.detach())
        opened_Bb = choose(bound_BG, self.cfg.mhe_open, truth.groups(self.groups))
        found = candidates(self.groups, opened_Bb, truth)
        of_rows = row_logits(first, second, opened_Bb)
        of_others = code_logits(first, second, found.place[:, of_rows.shape[1] :])
        logit_BM = torch.cat([of_rows, of_others], 1)
        if self.loss_kind == "bce":
            return bce_sum(logit_BM[found.real], found.targets) / self.world.sum_(found.real.sum())
        logit_BM = logit_BM.where(found.real, NOWHERE)
        alone = World(device=self.world.device)
        return decoupled_loss(logit_BM, found.target, found.target.sum(1), alone) / len(ready.batch.points)

    @property
    def score_tau(self) -> float | None:
        return 1.0 if self.loss_kind == "softmax" else None

    def best_codes(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Among all labels, logits summed in float64; scores are probabilities, with softmax logits."""
        first, second = self.net(z_ND)
        codes, scores = rank_topk(first.double(), second.double(), self.n_labels, k)
        missing = (0, k - codes.shape[1])
        scores = scores.sigmoid() if self.loss_kind == "bce" else scores
        return F.pad(codes, missing, value=-1), F.pad(scores, missing, value=-torch.inf)


def row_bounds(first_BRG: Tensor, second_BRC: Tensor) -> Tensor:
    """[B, G] no label of a row has a larger logit: each product is taken at its largest."""
    high, low = second_BRC.amax(2, keepdim=True), second_BRC.amin(2, keepdim=True)
    return torch.maximum(first_BRG * high, first_BRG * low).sum(1)


def row_logits(first_BRG: Tensor, second_BRC: Tensor, row_Bb: Tensor) -> Tensor:
    """[B, b * C] of the labels of these rows, row by row, pads too."""
    first_BRb = first_BRG.gather(2, row_Bb[:, None].expand(-1, first_BRG.shape[1], -1))
    return (first_BRb.mT @ second_BRC).flatten(1)


def code_logits(first_BRG: Tensor, second_BRC: Tensor, code_BM: Tensor) -> Tensor:
    """[B, M] of these codes; anything at -1."""
    code = code_BM.clamp(min=0)[:, None].expand(-1, first_BRG.shape[1], -1)
    length = second_BRC.shape[2]
    return (first_BRG.gather(2, code // length) * second_BRC.gather(2, code % length)).sum(1)
