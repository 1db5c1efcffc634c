"""Metrics of ranked label lists: P, R, RP, nDCG, MRR, Hit, Coverage and the propensity-scored PSP, PSnDCG and PSR.

Input is always a sparse top-k, never a points x labels score matrix. Conventions that change numbers: the label space
is the full matrix width; points without labels count as 0; equal scores go to the smaller label id; PSP and PSnDCG are
ratios of sums over all points; a missing place is a miss. Sums are float64. docs/metrics.md has the formulas.

Sources: Jain et al. (KDD 2016) for PSP; kunaldahiya/pyxclib for PSP and PSnDCG as ratios, nDCG of a point over the best
DCG of min(k, its labels); Chalkidis et al. (arXiv 1906.02192) for RP; DEXML (arXiv 2310.10636) for the TSV columns.

Legend: N points (n in one block), K places stored, k places counted, L labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dexml.evaluation.gains import Columns, Floats, Hits, mean_columns, weighted_columns
from dexml.evaluation.table import METRIC_COLUMNS, metric_columns, metrics_row, xclib_text
from dexml.evaluation.topk import (
    Csr,
    Ids,
    TopkError,
    apply_filters,
    as_ids,
    blocks,
    canonical,
    check_rows,
    filter_overfetch,
    one_row_per_point,
    validate_topk,
)
from dexml.index.search import rank_topk

EXTRAS = ("Hit", "PSR")
"""Metrics at `ks` that are measured on request only."""

_BLOCK = 1 << 16  # points at a time: the columns of 40 metrics stay near 20 MB

__all__ = ["METRIC_COLUMNS", "TopkError", "apply_filters", "compute_metrics", "coverage", "filter_overfetch"]
__all__ += ["metric_columns", "metrics_row", "one_row_per_point", "rank_topk", "recall_depths", "upper_bounds"]
__all__ += ["validate_topk", "xclib_text"]


def recall_depths(eval_topk: int) -> tuple[int, ...]:
    """Depths at which recall is reported: 10, 50, 100, then every hundred, as far as eval_topk goes."""
    return tuple(k for k in (10, 50, *range(100, eval_topk + 1, 100)) if k <= eval_topk)


def compute_metrics(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    ks: Sequence[int] = (1, 3, 5),
    inv_propensity: npt.ArrayLike | None = None,
    filters: Csr | None = None,
    recall_ks: Sequence[int] | None = None,
    mrr_k: int | None = None,
    empty: Literal["count", "drop"] = "count",
    extras: Collection[str] = (),
) -> dict[str, float]:
    """Metrics in percent of ranked ids [N, K] (-1 pads) against relevance [N, L]; what is stored and not 0 is true.

    Keys: P@k, nDCG@k, RP@k, R@k (k in ks), MRR@mrr_k, R@k (recall_ks), and PSP@k, PSnDCG@k given inv_propensity [L];
    Hit@k and PSR@k if `extras` names "Hit", "PSR".
    recall_ks and mrr_k left out are recall_depths(K) and 10 (if K >= 10); a k asked for above K is a TopkError.
    filters [N, L]: cells dropped from lists and truth. empty="drop" leaves points without labels out of the averages.
    """
    inputs = Inputs.of(topk_ids, relevance_csr, ks, inv_propensity, filters, recall_ks, mrr_k, extras)
    counted = float(inputs.counted(empty).sum())
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    for _, numerators, denominators in inputs.columns():
        for sums, columns in ((above, numerators), (below, denominators)):
            sums |= {name: sums.get(name, 0.0) + float(column.sum()) for name, column in columns.items()}
    return {name: percent(total, below.get(name, counted)) for name, total in above.items()}


def coverage(topk_ids: npt.ArrayLike, relevance_csr: Csr, ks: Sequence[int] = (1, 3, 5)) -> dict[str, float]:
    """Coverage@k in percent: of the labels that are true for some point, those found in the first k of one of these."""
    inputs = Inputs.of(topk_ids, relevance_csr, ks, recall_ks=(), mrr_k=max(ks))
    places = np.full(inputs.truth.shape[1], inputs.depth)  # the best place of each label
    for _, hits in inputs.hits():
        np.minimum.at(places, hits.label, hits.place)
    asked = len(np.unique(inputs.truth.indices))
    return {f"Coverage@{k}": percent(float((places < k).sum()), asked) for k in ks}


def upper_bounds(relevance_csr: Csr, ks: Sequence[int] = (1, 3, 5)) -> dict[str, float]:
    """The most that P@k and R@k can be, in percent: points with fewer or more than k labels keep them below 100."""
    true_n = np.diff(canonical(relevance_csr).indptr)
    reachable = {k: np.minimum(true_n, k) for k in ks}
    bounds = {f"P@{k}": 100.0 * float(found.mean()) / k for k, found in reachable.items()}
    return bounds | {f"R@{k}": 100.0 * float((found / np.maximum(true_n, 1)).mean()) for k, found in reachable.items()}


@dataclass(frozen=True)
class Inputs:
    """Lists and truth that were checked and fit together, without the filtered cells."""

    ids_NK: Ids
    truth: Csr
    """[N, L]"""
    weights: Floats | None
    """[L] inverse propensities"""
    ks: tuple[int, ...]
    recall_ks: tuple[int, ...]
    mrr_ks: tuple[int, ...]
    extras: Collection[str]

    @classmethod
    def of(
        cls,
        topk_ids: npt.ArrayLike,
        relevance_csr: Csr,
        ks: Sequence[int],
        inv_propensity: npt.ArrayLike | None = None,
        filters: Csr | None = None,
        recall_ks: Sequence[int] | None = None,
        mrr_k: int | None = None,
        extras: Collection[str] = (),
    ) -> Inputs:
        """Arguments as those of `compute_metrics`."""
        ids_NK, truth = as_ids(topk_ids), canonical(relevance_csr)
        places, num_labels = ids_NK.shape[1], truth.shape[1]
        recall_ks = tuple(recall_depths(places) if recall_ks is None else recall_ks)
        mrr_ks = tuple(k for k in (10,) if k <= places) if mrr_k is None else (mrr_k,)
        check_rows(ids_NK, truth, "relevance")
        _check_depths(ks, (*recall_ks, *mrr_ks), places, num_labels)
        _check_extras(extras, inv_propensity)
        validate_topk(ids_NK, num_labels)
        if filters is not None:
            truth = without_filtered(truth, canonical(filters))
            depth = max((*ks, *recall_ks, *mrr_ks), default=0)
            ids_NK, _ = apply_filters(ids_NK, np.zeros(ids_NK.shape, np.float32), filters, depth)
        weights = None if inv_propensity is None else _as_weights(inv_propensity, num_labels)
        return cls(ids_NK, truth, weights, tuple(ks), recall_ks, mrr_ks, extras)

    @property
    def depth(self) -> int:
        """Places that anything looks at."""
        return max((*self.ks, *self.recall_ks, *self.mrr_ks), default=0)

    def counted(self, empty: str = "count") -> Floats:
        """[N]: 1 for the points that means are taken over, 0 for others; TopkError if there are none."""
        if empty not in ("count", "drop"):
            raise TopkError(f"empty={empty!r}: choose 'count' (points without labels are 0) or 'drop'")
        counted = (np.diff(self.truth.indptr) > 0) | (empty == "count")
        if not counted.any():
            raise TopkError("no points to evaluate" + (" have labels" if len(counted) else ""))
        return counted.astype(np.float64)

    def hits(self) -> Iterator[tuple[slice, Hits]]:
        for rows in blocks(len(self.ids_NK), _BLOCK):
            yield rows, Hits.of(self.truth, rows, self.ids_NK[rows, : self.depth])

    def columns(self) -> Iterator[tuple[slice, Columns, Columns]]:
        """Block by block numerators and denominators of every metric; without one it is a mean over points."""
        for rows, hits in self.hits():
            above = mean_columns(hits, self.ks, self.recall_ks, self.mrr_ks, self.extras)
            below: Columns = {}
            if self.weights is not None and self.ks:
                ideal = Hits.ideal(self.truth, rows, self.weights, max(self.ks))
                above |= weighted_columns(hits, self.weights, self.ks, self.extras)
                below = weighted_columns(ideal, self.weights, self.ks, self.extras)
            yield rows, above, below


def percent(part: float, whole: float) -> float:
    """0 of 0 is 0."""
    return 100.0 * part / whole if whole else 0.0


# ---- checks ---------------------------------------------------------------------------------------------------------


def _check_extras(extras: Collection[str], inv_propensity: npt.ArrayLike | None) -> None:
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise TopkError(f"extras={', '.join(unknown)}: choose from {', '.join(EXTRAS)}")
    if "PSR" in extras and inv_propensity is None:
        raise TopkError("PSR weighs labels: give inv_propensity")


def _as_weights(inv_propensity: npt.ArrayLike, num_labels: int) -> Floats:
    weights = np.asarray(inv_propensity, dtype=np.float64)
    if weights.shape != (num_labels,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise TopkError(f"inv_propensity must be {num_labels} positive numbers, one a label; got shape {weights.shape}")
    return weights


def _check_depths(ks: Sequence[int], deep_ks: Sequence[int], places: int, num_labels: int) -> None:
    for k in (*ks, *deep_ks):
        if not 1 <= k <= places:
            raise TopkError(
                f"k={k} asked, but K={places} places are stored: 1 <= k <= K; search more labels or lower k"
            )
    if ks and max(ks) > num_labels:
        raise TopkError(f"k={max(ks)} is more than the {num_labels} labels there are: lower ks")


def without_filtered(truth: Csr, filters: Csr) -> Csr:
    if truth.shape != filters.shape:
        raise TopkError(f"filters have shape {filters.shape}, relevance {truth.shape}")
    both = sparse.csr_array(truth.astype(bool).multiply(filters.astype(bool)))
    if not both.nnz:
        return truth
    warnings.warn(f"{both.nnz} true pairs are also filter pairs: they are not counted as true", stacklevel=3)
    return canonical(truth.astype(bool).astype(np.int8) - both.astype(np.int8))
