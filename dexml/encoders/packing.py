"""Texts laid end to end, without padding: what a model needs to know of where each begins.

B texts of a chunk, N their tokens together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packing:
    """The layout of a chunk [N] whose texts have `lengths` [B] tokens, each at least 1.

    Neighbours of equal length form a run, which is a view of [texts, tokens]: attention inside a text needs no mask and
    wastes nothing. Sorting the texts by length makes the runs few.
    """

    lengths: Ints

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """(texts, tokens each) of the runs, in order."""
        begins = np.flatnonzero(np.diff(self.lengths, prepend=-1))
        counts = np.diff(begins, append=len(self.lengths))
        return list(zip(counts.tolist(), self.lengths[begins].tolist(), strict=True))

    @cached_property
    def run_sizes(self) -> list[int]:
        """Tokens of each run."""
        return [texts * tokens for texts, tokens in self.runs]

    @cached_property
    def starts(self) -> Tensor:
        """[B] the place of each text's first token."""
        return torch.from_numpy(np.cumsum(self.lengths) - self.lengths)

    @cached_property
    def text_of(self) -> Tensor:
        """[N] the text of each token."""
        return torch.from_numpy(np.repeat(np.arange(len(self.lengths)), self.lengths))

    @cached_property
    def positions(self) -> Tensor:
        """[N] the place of each token in its text."""
        return torch.arange(int(self.lengths.sum())) - self.starts[self.text_of]

    def mean(self, x_NH: Tensor) -> Tensor:
        """[B, H] the mean over the tokens of each text."""
        parts = x_NH.split(self.run_sizes)
        return torch.cat([x.view(*run, -1).mean(1) for x, run in zip(parts, self.runs, strict=True)])

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor, attend: Callable[[Tensor, Tensor, Tensor, slice], Tensor]
    ) -> Tensor:
        """`attend` on each run, [texts, heads, tokens, width] with the slice of its texts, of [1, heads, N, width]."""
        sides = [x[0].transpose(0, 1).split(self.run_sizes) for x in (query, key, value)]
        out, first = [], 0
        for (texts, tokens), *parts in zip(self.runs, *sides, strict=True):
            q, k, v = (x.unflatten(0, (texts, tokens)).transpose(1, 2) for x in parts)
            out.append(attend(q, k, v, slice(first, first + texts)).transpose(1, 2).flatten(0, 1))
            first += texts
        return torch.cat(out).transpose(0, 1).unsqueeze(0)
