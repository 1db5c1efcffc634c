"""Vectors of a text beside one pooled from the last layer.

N tokens of a chunk end to end, B texts, H hidden width, S segments.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_means(hidden_NH: Tensor, text_of: Tensor, positions: Tensor, lengths_B: Tensor, segments: int) -> Tensor:
    """[B, S * H], the mean of each of S equal parts of every text: token t of m belongs to part floor(S t / m).

    Args:
        text_of, positions: [N] the text of each token, and its place in it; tokens at negative places or at and beyond
            the length are left out.
        lengths_B: tokens that are divided into parts; a part without tokens is zeros.
    """
    inside = (positions >= 0) & (positions < lengths_B[text_of])
    text_of, positions, hidden_NH = text_of[inside], positions[inside], hidden_NH[inside]
    part = text_of * segments + segments * positions // lengths_B[text_of]
    sums = hidden_NH.new_zeros(len(lengths_B) * segments, hidden_NH.shape[1]).index_add(0, part, hidden_NH)
    counts = torch.bincount(part, minlength=len(sums)).clamp(min=1)
    return (sums / counts[:, None].to(sums.dtype)).view(len(lengths_B), -1)
