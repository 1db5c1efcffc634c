"""Label-wise attention: every output looks at the tokens of a text with a vector of its own (arXiv 1802.05695).

Output j weighs token t by a_jt, the softmax over t of u_j . H_t, and reads m_j, the weighted mean of the states. What
follows begins with a linear map, which is taken of the states before the mean: they are few, the pooled vectors many.

N tokens of B texts, T of the longest, D width of a state, S outputs looked at, F width after the linear map.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dexml.data.batching import Ints, length_chunks

GROUP_TOKENS = 2048  # padded, of texts of similar length that are looked at together


@dataclass(frozen=True, eq=False)
class Layout:
    """How the texts of a group lie in rows of states that are joined text by text."""

    lengths: Ints
    """[B], each at least 1"""
    starts: Ints
    """[B] row of the first token of a text"""

    @cached_property
    def longest(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def mask(self) -> Tensor:
        """[B, T], True for tokens."""
        return torch.arange(self.longest) < torch.from_numpy(self.lengths)[:, None]

    @cached_property
    def rows(self) -> Tensor:
        """[B, T] row of each token; padding repeats the first."""
        place = torch.arange(self.longest).expand(len(self.lengths), -1) * self.mask
        return torch.from_numpy(self.starts)[:, None] + place

    def take(self, states_ND: Tensor) -> Tensor:
        """[B, T, D] the states of these texts, zeros where there is no token."""
        device = states_ND.device
        return states_ND[self.rows.to(device)] * self.mask.to(device)[..., None]

    def put(self, grad_BTD: Tensor, into_ND: Tensor) -> None:
        """Writes the rows of the tokens back; those of padding are left out."""
        mask = self.mask.to(grad_BTD.device)
        into_ND[self.rows.to(grad_BTD.device)[mask]] = grad_BTD[mask]


def groups(lengths: Ints, token_budget: int = GROUP_TOKENS) -> list[tuple[Ints, Layout]]:
    """Texts of `lengths` [B] in groups of similar length: their numbers, and how they lie in the joined states."""
    starts = lengths.cumsum() - lengths
    return [(part, Layout(lengths[part], starts[part])) for part in length_chunks(lengths, len(lengths), token_budget)]


def attention(states_BTD: Tensor, query_SD: Tensor, mask_BT: Tensor) -> Tensor:
    """The weights [B, T, S] of the tokens for outputs with queries [S, D], or [B, S, D] of each text its own.

    Exactly 0 where the mask is False, in float32 or wider; sums to 1 over the tokens of a text.
    """
    scores_BTS = (states_BTD @ query_SD.mT).to(torch.promote_types(states_BTD.dtype, torch.float32))
    lowest = torch.finfo(scores_BTS.dtype).min
    return scores_BTS.masked_fill(~mask_BT[..., None], lowest).softmax(1)


def pooled(weights_BTS: Tensor, values_BTF: Tensor) -> Tensor:
    """[B, S, F] the mean of the values that each output sees."""
    return weights_BTS.mT @ values_BTF
