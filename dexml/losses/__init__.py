"""Losses for many positives over all labels: dense reference forms and one tiled form."""

from dexml.losses.dense import bce, decoupled_softmax, soft_topk, softmax
from dexml.losses.tiled import LOSSES, label_mass, tiled
from dexml.losses.types import KEPT, MASKED, REMOVED, SINGLE, Comm, LossError, LossSum, Positives, TiledResult, TopK

__all__ = [
    "KEPT",
    "LOSSES",
    "MASKED",
    "REMOVED",
    "SINGLE",
    "Comm",
    "LossError",
    "LossSum",
    "Positives",
    "TiledResult",
    "TopK",
    "bce",
    "decoupled_softmax",
    "label_mass",
    "soft_topk",
    "softmax",
    "tiled",
]
