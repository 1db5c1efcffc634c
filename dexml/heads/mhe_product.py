"""Multi-Head Product: one linear layer gives the digits of every head, a label scores the product of its digits'.

The parameters grow with the sum of the lengths, not with the labels. Digits of several positives are not paired: codes
put together of theirs score as high as they do ("ghosts", docs/mhe.md). Several products pair them: mhe_rank.py.

B texts of this rank, N texts searched for, D width of the text vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.heads.code_search import product_topk
from dexml.heads.features import PreparedFeatures
from dexml.heads.mhe import MultiHead
from dexml.heads.mhe_losses import PRODUCT, softmax_loss


class ProductNet(nn.Module):
    def __init__(self, width: int, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = list(lengths)
        self.heads = nn.Linear(width, sum(lengths))

    def forward(self, z_BD: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, length] of every head."""
        return self.heads(z_BD).split(self.lengths, dim=1)


class Product(MultiHead):
    net: ProductNet

    def build(self) -> None:
        self.net = ProductNet(self.encoder.width, self.codes.lengths)

    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        parts, truth = self.net(self.dropped(z_BD, ready)), self.truth(ready.positives)
        if self.loss_kind == "softmax":
            total = softmax_loss(parts, truth, self.n_labels if self.cfg.mhe_renormalise else None)
        else:
            total = PRODUCT[self.loss_kind](parts, truth)
        return total / len(ready.batch.points)

    def best_codes(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """By the product of probabilities, never of logits; sums of logarithms are taken in float64."""
        likely = torch.log_softmax if self.loss_kind in ("softmax", "joint-softmax") else _log_sigmoid
        codes, scores = product_topk([likely(part.double(), 1) for part in self.net(z_ND)], self.n_labels, k)
        missing = (0, k - codes.shape[1])
        return F.pad(codes, missing, value=-1), F.pad(scores.exp(), missing, value=-torch.inf)


def _log_sigmoid(logit_NM: Tensor, dim: int) -> Tensor:
    return F.logsigmoid(logit_NM)
