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

    def by_run(self, work: Callable[..., tuple[Tensor, ...]], *sides: Tensor) -> tuple[Tensor, ...]:
        """`work(texts, *parts)` on each run: the slice of its texts and what is theirs of `sides` [1, heads, N, width].

        A part is [texts * heads, tokens, width], and so is what work returns; it comes back joined like `sides`.
        """
        heads = sides[0].shape[1]
        runs = zip(*(side[0].transpose(0, 1).split(self.run_sizes) for side in sides), strict=True)
        joined: tuple[Tensor, ...] = ()
        first = place = 0
        for (texts, tokens), parts in zip(self.runs, runs, strict=True):
            shape = (texts, tokens, heads, -1)
            done = work(slice(first, first + texts), *(x.reshape(shape).transpose(1, 2).flatten(0, 1) for x in parts))
            joined = joined or tuple(x.new_empty(int(self.lengths.sum()), heads, x.shape[-1]) for x in done)
            for out, x in zip(joined, done, strict=True):
                rows = out[place : place + texts * tokens].view(shape)
                rows.copy_(x.view(texts, heads, tokens, -1).transpose(1, 2))
            first, place = first + texts, place + texts * tokens
        return tuple(out.transpose(0, 1).unsqueeze(0) for out in joined)
