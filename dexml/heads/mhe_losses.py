"""Losses of Multi-Head Encoding (arXiv 2412.10182); each is a sum over texts, to be divided by their number.

Positives are codes. With several of them a text the softmax losses are means over its positives, the others compare
with all of them at once; only with one positive are they published.

B texts, L codes, P positives of all texts, M compared codes of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.distributed import World
from dexml.heads.candidates import Truth, bce_sum

Parts = Sequence[Tensor]
"""Logits [B, length] of every head, first to last."""
NOWHERE = -1e30  # logit of a place without a label: finite, so that a row of nothing but these has a gradient


# --- product


def digits_of(code_P: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """The digit [P] of every head."""
    return [code_P // prod(lengths[h + 1 :]) % length for h, length in enumerate(lengths)]


def softmax_loss(parts: Parts, truth: Truth, n_codes: int | None = None) -> Tensor:
    """Cross-entropy of every head, added; that of all sums of a logit of each head.

    Args:
        n_codes: if given, of the sums of codes below it only: without pads.
    """
    log_z_B = sum_lse(parts) if n_codes is None else normaliser(parts, n_codes)
    return _mean_over_positives(log_z_B, _picked(parts, truth), truth)


def joint_softmax_loss(parts: Parts, truth: Truth) -> Tensor:
    """The digits of all heads in one softmax."""
    log_z_B = len(parts) * torch.cat(list(parts), 1).logsumexp(1)
    return _mean_over_positives(log_z_B, _picked(parts, truth), truth)


def bce_loss(parts: Parts, truth: Truth) -> Tensor:
    """The mean over the digits of every head, added."""
    targets = multi_hot(parts, truth)
    return torch.stack([bce_sum(o, t) / o.shape[1] for o, t in zip(parts, targets, strict=True)]).sum()


def soft_margin_loss(parts: Parts, truth: Truth) -> Tensor:
    """The mean over the digits of all heads together."""
    joint = torch.cat(list(parts), 1)
    return bce_sum(joint, torch.cat(multi_hot(parts, truth), 1)) / joint.shape[1]


def multi_hot(parts: Parts, truth: Truth) -> list[Tensor]:
    """bool [B, length] of every head: the digit is that of a positive."""
    targets = [torch.zeros_like(part, dtype=torch.bool) for part in parts]
    for target, digit in zip(targets, digits_of(truth.place, _lengths(parts)), strict=True):
        target[truth.row, digit] = True
    return targets


def sum_lse(parts: Parts) -> Tensor:
    """[B] logsumexp over all codes, pads too."""
    return torch.stack([part.logsumexp(1) for part in parts]).sum(0)


def normaliser(parts: Parts, n_codes: int) -> Tensor:
    """[B] logsumexp over the codes below `n_codes`, without an array of them."""
    whole, rest = divmod(n_codes, prod(_lengths(parts[1:])))
    terms = []
    if whole:
        terms.append(sum_lse([parts[0][:, :whole], *parts[1:]]))
    if rest:
        terms.append(parts[0][:, whole] + normaliser(parts[1:], rest))
    return torch.stack(terms).logsumexp(0)


def _lengths(parts: Parts) -> list[int]:
    return [part.shape[1] for part in parts]


def _picked(parts: Parts, truth: Truth) -> Tensor:
    """[P] sum of the logits of a positive's digits."""
    digits = digits_of(truth.place, _lengths(parts))
    return torch.stack([part[truth.row, digit] for part, digit in zip(parts, digits, strict=True)]).sum(0)


def _mean_over_positives(log_z_B: Tensor, logit_P: Tensor, truth: Truth) -> Tensor:
    return ((log_z_B[truth.row] - logit_P) / _positives_of_its_text(truth.row, truth.n_rows)).sum()


def _positives_of_its_text(row_P: Tensor, n_rows: int) -> Tensor:
    return row_P.bincount(minlength=n_rows)[row_P]


PRODUCT = {"joint-softmax": joint_softmax_loss, "bce": bce_loss, "soft-margin": soft_margin_loss}
"""Those that take nothing but logits and positives."""


# --- sampling


def decoupled_loss(logit_BM: Tensor, target_BM: Tensor, n_positives_B: Tensor, peers: World) -> Tensor:
    """Cross-entropy of every positive against the negatives of its text, averaged over its positives.

    With one positive a text that is the softmax over what is compared.

    Args:
        logit_BM: `NOWHERE` at places that are not compared.
        target_BM: bool, positives.
        n_positives_B: of all places.
        peers: ranks that hold other columns of the same texts; the result is this rank's part of the sum.
    """
    row, column = target_BM.nonzero(as_tuple=True)
    logit_P = logit_BM[row, column]
    here_B = logit_BM.masked_fill(target_BM, NOWHERE).logsumexp(1)
    everywhere_B = peers.gather(here_B.detach()).logsumexp(0)
    loss_P = F.softplus(everywhere_B[row] - logit_P) / n_positives_B[row]
    slope_P = (everywhere_B[row] - logit_P.detach()).sigmoid() / n_positives_B[row]
    slope_B = peers.sum_(torch.zeros_like(everywhere_B).index_add(0, row, slope_P))
    share_B = slope_B * (here_B.detach() - everywhere_B).exp()  # the derivative of the loss by `here`
    return loss_P.sum() + (share_B * (here_B - here_B.detach())).sum()
