"""Modules of LightXML: what becomes of the text vector before it meets clusters and labels.

B texts, N layers of width H, D = N * H the text vector.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCED = 2  # width between the two layers of the excitation
AT_ONE, AT_A_TENTH = 0.541325, -2.252168  # softplus of these is 1, and 0.1


class LayerGate(nn.Module):
    """Weights for the layers of a text from what they hold: squeeze-and-excitation (arXiv 1709.01507) over layers.

    Begins at 1 for every layer. With `affine` the weights are those of the published fork: an affine map of each
    layer's maximum, of any sign and size, random at first.
    """

    def __init__(self, layers: int, affine: bool = False) -> None:
        super().__init__()
        self.affine = affine
        self.squeeze, self.excite = nn.Linear(layers, REDUCED), nn.Linear(REDUCED, layers)
        if not affine:
            nn.init.zeros_(self.excite.weight)
            nn.init.zeros_(self.excite.bias)

    def forward(self, x_BNH: Tensor) -> Tensor:
        if self.affine:
            gate_BN = self.excite(self.squeeze(x_BNH.amax(2)))
        else:
            gate_BN = 2 * self.excite(F.relu(self.squeeze(x_BNH.mean(2)))).sigmoid()
        return gate_BN[..., None] * x_BNH


class TokenBlend(nn.Module):
    """The text vector plus the means of its parts, each normalised, element by element as much as is learnt: a
    combination block in the manner of DECAF (arXiv 2108.00368). Begins at 1 and 0.1."""

    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.full((parts * width,), AT_ONE))
        self.tokens = nn.Parameter(torch.full((parts * width,), AT_A_TENTH))
        self.width = width

    def forward(self, z_BD: Tensor, parts_BD: Tensor) -> Tensor:
        parts_BD = F.layer_norm(parts_BD.unflatten(1, (-1, self.width)), (self.width,)).flatten(1)
        return F.softplus(self.vector) * z_BD + F.softplus(self.tokens) * parts_BD


class Document(nn.Module):
    """Two text vectors [B, D] from what the encoder gives: for the clusters, and for the labels."""

    def __init__(
        self,
        layers: int,
        width: int,
        se: Literal["none", "gate", "affine"] = "none",
        tokens: Literal["none", "both", "ranker"] = "none",
    ) -> None:
        super().__init__()
        self.layers, self.width, self.both = layers, width, tokens == "both"
        self.size = layers * width
        """D"""
        self.gate = None if se == "none" else LayerGate(layers, se == "affine")
        self.blend = None if tokens == "none" else TokenBlend(layers, width)

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        z_BD = encoded[:, : self.size]
        if self.gate is not None:
            z_BD = self.gate(z_BD.unflatten(1, (self.layers, self.width))).flatten(1)
        if self.blend is None:
            return z_BD, z_BD
        blended_BD = self.blend(z_BD, encoded[:, self.size :])
        return blended_BD if self.both else z_BD, blended_BD
