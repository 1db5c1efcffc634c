"""A text encoder that gives the state of every token instead of one vector a text.

B texts, T tokens (padded), N tokens of all texts, H hidden width.
"""

from __future__ import annotations

from torch import Tensor, nn

from dexml.encoders.packing import Packing
from dexml.encoders.text import Precision, TextEncoder, widen


class StateEncoder(TextEncoder):
    """Token ids to states: `forward(ids [B, T], lengths [B], keys [B]) -> [N, H]`, text by text, without padding."""

    states = True

    def __init__(self, backbone: nn.Module, precision: Precision = "fp32") -> None:
        super().__init__(backbone, "mean", normalize=False, precision=precision)

    def plain(self) -> TextEncoder:
        return TextEncoder(self.tf, self.pooler, normalize=True, precision=self.precision)

    def _pool(self, hidden_BTH: Tensor, mask_BT: Tensor, lengths_B: Tensor) -> Tensor:
        return widen(hidden_BTH[mask_BT])

    def _pool_packed(self, hidden_NH: Tensor, packing: Packing) -> Tensor:
        return widen(hidden_NH)
