"""How well a score tells two kinds of items apart, such as wrong from right predictions: AUROC and average precision.

Items are given as arrays of any shape, one element each; of equal scores the item that comes first in reading order
(the smaller point, then the better place) ranks higher.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats
from dexml.evaluation.topk import Mask


class DetectionError(ValueError):
    """Scores that cannot be judged."""


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """The chance that a positive item scores above a negative one; equal scores count one half.

    Raises:
        DetectionError: no positive or no negative item, or a score that is nan.
    """
    score, is_positive = _items(scores, positive)
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # from 1, of each distinct score
    n = int(is_positive.sum())
    return float((mean_rank[inverse][is_positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def average_precision(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """The mean over the positive items of the share of positives among all that rank no lower.

    Raises:
        DetectionError: as `auroc`.
    """
    score, is_positive = _items(scores, positive)
    hit = is_positive[np.argsort(-score, kind="stable")]
    found = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float(found[hit].mean())


def _items(scores: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Floats, Mask]:
    score, is_positive = np.asarray(scores, np.float64).ravel(), np.asarray(positive, bool).ravel()
    if score.shape != is_positive.shape or np.isnan(score).any():
        raise DetectionError(f"{len(score)} scores for {len(is_positive)} items: one that is not nan for each")
    if is_positive.all() or not is_positive.any():
        raise DetectionError(f"all {len(score)} items are of one kind: there is nothing to tell apart")
    return score, is_positive
