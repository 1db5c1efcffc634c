"""Where a model is good and where it is not: the same metrics for groups of labels and for groups of points.

Labels are grouped by their frequency in training. What each group adds to P@k sums up to P@k; micro-recall is the
share of its test positives that were found. Points are grouped by any number that belongs to them. Lists are taken as
they are: filter them first (`apply_filters`).

Sources: head, torso and tail at 50 and 10 training points: DEXA (KDD 2023). Group-restricted ranking: EURLEX57K
(Chalkidis et al., arXiv 1906.02192).

Legend: N points, K places, L labels, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dexml.evaluation.intervals import point_sums
from dexml.evaluation.metrics import Inputs, compute_metrics, percent
from dexml.evaluation.topk import Csr, Ids, Mask, TopkError, as_ids, blocks, canonical

_BLOCK = 8192  # points at a time


@dataclass(frozen=True)
class LabelGroup:
    """Labels of like frequency, and how they were found."""

    name: str
    labels: int
    mean_frequency: float
    """training points of a label, on average"""
    positives: int
    """pairs of a test point and a label of the group"""
    contribution: dict[int, float]
    """by k: percent points of P@k that come from this group"""
    recall: dict[int, float]
    """by k: percent of the positives that are among the first k; 0 without positives"""


@dataclass(frozen=True)
class PointGroup:
    """Points that are alike, and their metrics."""

    name: str
    points: int
    metrics: dict[str, float]
    """as of `compute_metrics`; empty without points"""


# ---- groups of labels -----------------------------------------------------------------------------------------------


def by_frequency(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    label_counts: npt.ArrayLike,
    ks: Sequence[int] = (1, 3, 5),
    bins: int = 10,
) -> list[LabelGroup]:
    """Bins of equal training mass, the most frequent labels first, then the unseen ones.

    label_counts [L]: training points of each label; the other arguments as in `compute_metrics`.
    """
    group_L = mass_bins(label_counts, bins)
    names = [*(f"bin {number}" for number in range(1, bins + 1)), "unseen"]
    return _label_groups(topk_ids, relevance_csr, label_counts, group_L, names, ks)


def by_head(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    label_counts: npt.ArrayLike,
    ks: Sequence[int] = (1, 3, 5),
    thresholds: Sequence[int] = (50, 10),
) -> list[LabelGroup]:
    """Head, torso, tail and unseen labels, the thresholds in their names. Arguments as in `by_frequency`."""
    group_L, names = head_groups(label_counts, thresholds)
    return _label_groups(topk_ids, relevance_csr, label_counts, group_L, names, ks)


def mass_bins(label_counts: npt.ArrayLike, bins: int) -> Ids:
    """[L] the bin 0..bins-1 of each label, `bins` for unseen ones.

    In the order of frequency, then of id, the bin of a label follows from the training pairs of the labels before it.
    """
    counts_L = _as_counts(label_counts)
    if bins < 1:
        raise TopkError(f"bins={bins}: at least 1 is needed")
    order = np.argsort(-counts_L, kind="stable")
    bin_L = np.empty(len(counts_L), np.int64)
    before_L = counts_L[order].cumsum() - counts_L[order]
    bin_L[order] = before_L * bins // max(1, int(counts_L.sum()))
    return np.where(counts_L > 0, bin_L, bins)


def head_groups(label_counts: npt.ArrayLike, thresholds: Sequence[int]) -> tuple[Ids, list[str]]:
    """[L] 0 for labels with at least the first threshold, 1 for those with the second, ..., and the groups' names.

    Those below the last threshold are the tail, those that no training point has the last group.
    """
    counts_L, floors = _as_counts(label_counts), [*thresholds, 1]
    if len(floors) < 2 or any(high <= low for high, low in pairwise(floors)):
        raise TopkError(f"thresholds={tuple(thresholds)}: give falling numbers of training points above 1")
    kinds = ["head", *["torso"] * (len(floors) - 2), "tail"]
    below = [f"{low}" if high == low + 1 else f"{low}-{high - 1}" for high, low in pairwise(floors)]
    names = [f"{kind} ({span})" for kind, span in zip(kinds, [f"{floors[0]}+", *below], strict=True)]
    return (counts_L[:, None] < np.array(floors)).sum(axis=1), [*names, "unseen"]


def _label_groups(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    label_counts: npt.ArrayLike,
    group_L: Ids,
    names: Sequence[str],
    ks: Sequence[int],
) -> list[LabelGroup]:
    inputs = Inputs.of(topk_ids, relevance_csr, ks, recall_ks=(), mrr_k=max(ks))
    _check_labels(group_L, inputs.truth)
    groups, points = len(names), len(inputs.ids_NK)
    found_Gk = np.zeros((groups, inputs.depth), np.int64)
    for _, hits in inputs.hits():
        cell = group_L[hits.label] * inputs.depth + hits.place
        found_Gk += np.bincount(cell, minlength=found_Gk.size).reshape(found_Gk.shape)
    found_Gk = found_Gk.cumsum(axis=1)
    labels = np.bincount(group_L, minlength=groups)
    mass = np.bincount(group_L, _as_counts(label_counts), groups)
    positives = np.bincount(group_L[inputs.truth.indices], minlength=groups)
    return [
        LabelGroup(
            name,
            int(labels[at]),
            float(mass[at] / max(1, labels[at])),
            int(positives[at]),
            {k: percent(float(found_Gk[at, k - 1]), k * points) for k in ks},
            {k: percent(float(found_Gk[at, k - 1]), float(positives[at])) for k in ks},
        )
        for at, name in enumerate(names)
    ]


# ---- groups of points -----------------------------------------------------------------------------------------------


def restricted(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    label_counts: npt.ArrayLike,
    ks: Sequence[int] = (1, 3, 5),
    thresholds: Sequence[int] = (50,),
) -> list[PointGroup]:
    """Ranking among the labels of a group alone, on the points that have one of them: head, ..., tail, unseen.

    The lists [N, K] are cut: with K below L the figures are lower bounds. 50 gives the groups of EURLEX57K (frequent,
    few-shot, zero-shot). Arguments as in `by_frequency`.
    """
    ids_NK, truth = as_ids(topk_ids), canonical(relevance_csr)
    Inputs.of(ids_NK, truth, ks)
    group_L, names = head_groups(label_counts, thresholds)
    _check_labels(group_L, truth)
    return [_restricted_to(ids_NK, truth, group_L == at, name, ks) for at, name in enumerate(names)]


def _restricted_to(ids_NK: Ids, truth: Csr, member_L: Mask, name: str, ks: Sequence[int]) -> PointGroup:
    truth = canonical(truth.multiply(member_L[None]).astype(np.int8))
    points = np.flatnonzero(np.diff(truth.indptr))
    if not len(points):
        return PointGroup(name, 0, {})
    kept = [_keep(ids_NK[points[some]], member_L) for some in blocks(len(points), _BLOCK)]
    return PointGroup(name, len(points), compute_metrics(np.concatenate(kept), truth[points], ks))


def _keep(ids_nK: Ids, member_L: Mask) -> Ids:
    """The lists without labels that are no members, the gaps closed."""
    drop = (ids_nK < 0) | ~member_L[ids_nK]
    order = np.argsort(drop, axis=1, kind="stable")
    return np.take_along_axis(np.where(drop, -1, ids_nK), order, axis=1)


def by_points(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    values: npt.ArrayLike,
    edges: int | Sequence[float] = 4,
    ks: Sequence[int] = (1, 3, 5),
    inv_propensity: npt.ArrayLike | None = None,
) -> list[PointGroup]:
    """Points by a number of theirs [N]: how many labels they have, how long their text is.

    edges: where a group begins, ascending; those below the first are a group too. A number: so many groups of like
    size, fewer where values repeat. Names are the least and the greatest value of a group; empty groups are left out.
    """
    sums, values_N = point_sums(topk_ids, relevance_csr, ks, inv_propensity), np.asarray(values, dtype=np.float64)
    if values_N.shape != (len(sums.numerator),) or not np.isfinite(values_N).all():
        raise TopkError(f"values {values_N.shape} must be {len(sums.numerator)} numbers, one a point")
    group_N = np.searchsorted(_edges(values_N, edges), values_N, side="right")
    return [
        PointGroup(_span(values_N[group_N == at]), int((group_N == at).sum()), sums.rows(group_N == at).values())
        for at in np.unique(group_N)
    ]


def _edges(values_N: npt.NDArray[np.float64], edges: int | Sequence[float]) -> npt.NDArray[np.float64]:
    if isinstance(edges, int):
        return np.unique(np.quantile(values_N, np.arange(1, edges) / edges, method="higher"))
    if sorted(edges) != list(edges):
        raise TopkError(f"edges={edges}: give them in ascending order")
    return np.asarray(edges, dtype=np.float64)


def _span(values: npt.NDArray[np.float64]) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


# ---- checks ---------------------------------------------------------------------------------------------------------


def _as_counts(label_counts: npt.ArrayLike) -> Ids:
    counts_L = np.asarray(label_counts)
    if counts_L.ndim != 1 or counts_L.dtype.kind not in "iu" or (counts_L < 0).any():
        raise TopkError(f"label_counts must be training points, one whole number a label, not {counts_L.dtype} array")
    return counts_L.astype(np.int64)


def _check_labels(group_L: Ids, truth: Csr) -> None:
    if len(group_L) != truth.shape[1]:
        raise TopkError(f"label_counts are of {len(group_L)} labels, relevance has {truth.shape[1]}")
