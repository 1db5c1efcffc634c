"""What a head offers whose scores can be read as probabilities, each label's on its own.

N texts, K labels of each, D width of a text's vector.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Probabilistic(Protocol):
    """A head that knows P(label is relevant | text) of any label."""

    def best(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best labels of each text, as a `FeatureHead` finds them."""

    def score(self, z_ND: Tensor, ids_NK: Tensor) -> Tensor:
        """[N, K] the probabilities of these labels, 0 for -1. Exact, whatever a search would have found."""


@runtime_checkable
class Certified(Probabilistic, Protocol):
    """One whose search also knows how much it can have missed."""

    def probable(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Probable labels [N, k], -1 behind the last, and of the others an upper bound [N] of the probability of each
        and one [N] of their sum."""
