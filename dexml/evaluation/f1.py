"""Micro- and macro-F1 of predicted label sets: the labels above a threshold, or the first k of each list.

Macro-F1 averages over all L labels; one that is neither true nor predicted anywhere has F1 0. Opitz and Burst (arXiv
1911.03347) tell two macro-F1s apart: ours is the mean of the labels' F1, the other one the F1 of mean precision and
mean recall.

Lists are taken as they are: filter them first (`apply_filters`).

Legend: N points, K places, L labels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats
from dexml.evaluation.metrics import Inputs
from dexml.evaluation.topk import Csr, Ids, Mask, TopkError, as_ids, blocks, contains

_BLOCK = 8192  # points at a time


@dataclass(frozen=True)
class LabelCounts:
    """What was predicted for each label, and what was right; each int64 [L]."""

    hits: Ids
    """points of which the label was predicted and true"""
    predicted: Ids
    true: Ids
    truncated: int = 0
    """points whose list is full and above the threshold to its end, so that labels may be missing from it"""

    @property
    def f1(self) -> Floats:
        """[L] of each label, as a fraction; 0 of 0 is 0."""
        return _over(2 * self.hits, self.predicted + self.true)

    def metrics(self, test_labels: bool = False, another: bool = False) -> dict[str, float]:
        """Micro-F1 and Macro-F1 in percent and `macro_f1_labels`, the number of labels that Macro-F1 is a mean of.

        test_labels: also 'Macro-F1 (test labels)', the mean over labels that are true for some point.
        another: also 'Another-Macro-F1', the F1 of mean precision and mean recall.
        """
        micro = _over(2 * self.hits.sum(keepdims=True), (self.predicted + self.true).sum(keepdims=True))
        found = {"Micro-F1": 100 * float(micro[0]), "Macro-F1": 100 * _mean(self.f1), "macro_f1_labels": len(self.true)}
        if test_labels:
            found["Macro-F1 (test labels)"] = 100 * _mean(self.f1[self.true > 0])
        if another:
            precision, recall = _mean(_over(self.hits, self.predicted)), _mean(_over(self.hits, self.true))
            found["Another-Macro-F1"] = 200 * precision * recall / (precision + recall) if precision + recall else 0.0
        return found


def count_first(topk_ids: npt.ArrayLike, relevance_csr: Csr, k: int) -> LabelCounts:
    """The first k of each list [N, K] are predicted; relevance [N, L] as in `compute_metrics`."""
    inputs = Inputs.of(topk_ids, relevance_csr, (k,))
    ids_Nk = inputs.ids_NK[:, :k]
    return _count(ids_Nk, ids_Nk >= 0, inputs.truth)


def count_above(
    topk_ids: npt.ArrayLike,
    scores: npt.ArrayLike,
    relevance_csr: Csr,
    threshold: float = 0.5,
) -> LabelCounts:
    """Labels with a score [N, K] above the threshold (not equal to it) are predicted.

    Warns when lists end above the threshold: store more labels.
    """
    ids_NK, scores_NK = as_ids(topk_ids), np.asarray(scores, dtype=np.float32)
    places = ids_NK.shape[1]
    if scores_NK.shape != ids_NK.shape or np.isnan(scores_NK).any():
        raise TopkError(f"scores {scores_NK.shape} must be numbers, one for each of the ids {ids_NK.shape}")
    truth, chosen_NK = Inputs.of(ids_NK, relevance_csr, ()).truth, (ids_NK >= 0) & (scores_NK > float(threshold))
    truncated = int(chosen_NK[:, -1].sum()) if places < truth.shape[1] else 0
    if truncated:
        warnings.warn(
            f"{truncated} of {len(ids_NK)} lists of {places} labels end above the threshold {threshold:g}: labels may "
            "be missing from the predicted sets; store more labels or raise the threshold",
            stacklevel=2,
        )
    return _count(ids_NK, chosen_NK, truth, truncated)


def _count(ids_NK: Ids, chosen_NK: Mask, truth: Csr, truncated: int = 0) -> LabelCounts:
    num_labels = truth.shape[1]
    hits, predicted = np.zeros(num_labels, np.int64), np.zeros(num_labels, np.int64)
    for rows in blocks(len(ids_NK), _BLOCK):
        ids, chosen = ids_NK[rows], chosen_NK[rows]
        predicted += np.bincount(ids[chosen], minlength=num_labels)
        hits += np.bincount(ids[chosen & contains(truth, rows, ids)], minlength=num_labels)
    return LabelCounts(hits, predicted, np.bincount(truth.indices, minlength=num_labels), truncated)


def _over(part: Ids, whole: Ids) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.zeros(len(whole)), where=whole != 0))


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0
