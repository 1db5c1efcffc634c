"""Metrics of ranked label lists: P, R, RP, nDCG, MRR and the propensity-scored PSP and PSnDCG.

Input is always a sparse top-k, never a points x labels score matrix. Conventions that change numbers: the label space
is the full matrix width; points without labels count as 0; equal scores go to the smaller label id; PSP and PSnDCG are
ratios of sums over all points; a missing place is a miss. Sums are float64. docs/metrics.md has the formulas.

Sources: Jain et al. (KDD 2016) for PSP; kunaldahiya/pyxclib for PSP and PSnDCG as ratios, nDCG of a point over the best
DCG of min(k, its labels); Chalkidis et al. (arXiv 1906.02192) for RP; DEXML (arXiv 2310.10636) for the TSV columns.

Legend: N points (n in one block), K places stored, k places counted, L labels.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dexml.evaluation.topk import (
    Csr,
    Ids,
    Mask,
    TopkError,
    apply_filters,
    as_ids,
    blocks,
    canonical,
    cells,
    check_rows,
    contains,
    filter_overfetch,
    one_row_per_point,
    validate_topk,
)
from dexml.index.search import rank_topk

Floats = npt.NDArray[np.float64]

METRIC_COLUMNS = (
    *("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5", "MRR@10"),
    *("PSP@1", "PSP@3", "PSP@5", "R@10", "R@50", "R@100"),
)
"""Columns of the metrics TSV in DEXML's order; R@200, R@300, ... follow where eval_topk reaches them."""

_BLOCK = 8192  # points at a time: temporaries stay near 50 MB at K = 100

__all__ = ["METRIC_COLUMNS", "TopkError", "apply_filters", "compute_metrics", "filter_overfetch", "metric_columns"]
__all__ += ["metrics_row", "one_row_per_point", "rank_topk", "recall_depths", "validate_topk", "xclib_text"]


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
) -> dict[str, float]:
    """Metrics in percent of ranked ids [N, K] (-1 pads) against relevance [N, L]; what is stored and not 0 is true.

    Keys: P@k, nDCG@k, RP@k, R@k (k in ks), MRR@mrr_k, R@k (recall_ks), and PSP@k, PSnDCG@k given inv_propensity [L].
    recall_ks and mrr_k left out are recall_depths(K) and 10 (if K >= 10); a k asked for above K is a TopkError.
    filters [N, L]: cells dropped from lists and truth. empty="drop" leaves points without labels out of the averages.
    """
    ids_NK, truth = as_ids(topk_ids), canonical(relevance_csr)
    places, num_labels = ids_NK.shape[1], truth.shape[1]
    recall_ks = tuple(recall_depths(places) if recall_ks is None else recall_ks)
    mrr_ks = tuple(k for k in (10,) if k <= places) if mrr_k is None else (mrr_k,)
    check_rows(ids_NK, truth, "relevance")
    _check_depths(ks, (*recall_ks, *mrr_ks), places, num_labels)
    validate_topk(ids_NK, num_labels)
    depth = max((*ks, *recall_ks, *mrr_ks), default=0)
    if filters is not None:
        truth = _without_filtered(truth, canonical(filters))
        ids_NK, _ = apply_filters(ids_NK, np.zeros(ids_NK.shape, np.float32), filters, depth)
    weights = None if inv_propensity is None else _as_weights(inv_propensity, num_labels)
    sums: dict[str, float] = {}
    for rows in blocks(len(ids_NK), _BLOCK):
        block = ids_NK[rows, :depth]
        hits = contains(truth, rows, block)
        true_n = np.diff(truth.indptr[rows.start : rows.stop + 1]).astype(np.int64)
        parts = _hit_sums(hits, true_n, ks, recall_ks, mrr_ks)
        if weights is not None and ks:
            gains = np.where(hits, weights[block], 0.0)
            parts |= _propensity_sums(gains, _best_gains(truth, rows, weights, max(ks)), true_n, ks)
        sums = {name: sums.get(name, 0.0) + part for name, part in parts.items()}
    return _averages(sums, _count_points(truth, empty))


def _hit_sums(
    hit_nK: Mask, true_n: Ids, ks: Sequence[int], recall_ks: Sequence[int], mrr_ks: Sequence[int]
) -> dict[str, float]:
    """Sums over the points of a block of every metric that is a mean over points."""
    found_nK = hit_nK.cumsum(axis=1)
    dcg_nK = (hit_nK * _discounts(hit_nK.shape[1])).cumsum(axis=1)
    ideal = _ideal_dcg(max(ks, default=0))
    some_n = np.maximum(true_n, 1)  # points without labels have no hits: 0 over anything
    sums: dict[str, float] = {}
    for k in ks:
        sums[f"P@{k}"] = found_nK[:, k - 1].sum() / k
        sums[f"nDCG@{k}"] = (dcg_nK[:, k - 1] / ideal[np.minimum(some_n, k)]).sum()
        sums[f"RP@{k}"] = (found_nK[:, k - 1] / np.minimum(some_n, k)).sum()
    for k in dict.fromkeys((*ks, *recall_ks)):
        sums[f"R@{k}"] = (found_nK[:, k - 1] / some_n).sum()
    for k in mrr_ks:
        first_n = hit_nK[:, :k].argmax(axis=1)
        sums[f"MRR@{k}"] = (hit_nK[:, :k].any(axis=1) / (first_n + 1.0)).sum()
    return sums


def _propensity_sums(gain_nK: Floats, best_nk: Floats, true_n: Ids, ks: Sequence[int]) -> dict[str, float]:
    """Both sums of the two ratios, the denominator under the name 'best PSP@k'."""
    discount = _discounts(max(ks))
    ideal = _ideal_dcg(max(ks))
    sums: dict[str, float] = {}
    for k in ks:
        norm_n = ideal[np.minimum(np.maximum(true_n, 1), k)]
        for prefix, values in (("", gain_nK[:, :k]), ("best ", best_nk[:, :k])):
            sums[f"{prefix}PSP@{k}"] = values.sum()
            sums[f"{prefix}PSnDCG@{k}"] = ((values * discount[:k]).sum(axis=1) / norm_n).sum()
    return sums


def _best_gains(truth: Csr, rows: slice, weights: Floats, depth: int) -> Floats:
    """[n, depth]: the largest weights among each point's true labels, descending, 0 where it has fewer."""
    owner, label = cells(truth, rows)  # owner is ascending, so it is the same before and after the sort
    sorted_label = label[np.lexsort((-weights[label], owner))]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = place < depth
    best = np.zeros((rows.stop - rows.start, depth))
    best[owner[kept], place[kept]] = weights[sorted_label[kept]]
    return best


def _averages(sums: Mapping[str, float], num_points: int) -> dict[str, float]:
    means = {}
    for name, total in sums.items():
        if name.startswith("best "):
            continue
        below = sums.get(f"best {name}", float(num_points))
        means[name] = 100.0 * float(total) / float(below) if below else 0.0
    return means


def _count_points(truth: Csr, empty: str) -> int:
    if empty not in ("count", "drop"):
        raise TopkError(f"empty={empty!r}: choose 'count' (points without labels are 0) or 'drop'")
    counted = int((np.diff(truth.indptr) > 0).sum()) if empty == "drop" else truth.shape[0]
    if counted == 0:
        raise TopkError("no points to evaluate" + (" have labels" if truth.shape[0] else ""))
    return counted


def _discounts(depth: int) -> Floats:
    return np.asarray(1.0 / np.log2(np.arange(2, depth + 2)))


def _ideal_dcg(depth: int) -> Floats:
    """[depth + 1]: DCG of m true labels on top, m = 0..depth."""
    return np.concatenate([[0.0], _discounts(depth).cumsum()])


# ---- checks ---------------------------------------------------------------------------------------------------------


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


def _without_filtered(truth: Csr, filters: Csr) -> Csr:
    if truth.shape != filters.shape:
        raise TopkError(f"filters have shape {filters.shape}, relevance {truth.shape}")
    both = sparse.csr_array(truth.astype(bool).multiply(filters.astype(bool)))
    if not both.nnz:
        return truth
    warnings.warn(f"{both.nnz} true pairs are also filter pairs: they are not counted as true", stacklevel=3)
    return canonical(truth.astype(bool).astype(np.int8) - both.astype(np.int8))


# ---- what is printed ------------------------------------------------------------------------------------------------


def metric_columns(metrics: Mapping[str, float]) -> list[str]:
    """TSV columns that `metrics` can fill: METRIC_COLUMNS without what is missing, then R@200, R@300, ..."""
    deeper = sorted(int(name[2:]) for name in metrics if name.startswith("R@") and name.endswith("00"))
    return [name for name in METRIC_COLUMNS if name in metrics] + [f"R@{k}" for k in deeper if k > 100]


def metrics_row(metrics: Mapping[str, float]) -> list[str]:
    """Cells of one TSV row under `metric_columns(metrics)`: percent with 2 decimals."""
    return [f"{metrics[name]:.2f}" for name in metric_columns(metrics)]


def xclib_text(metrics: Mapping[str, float]) -> str:
    """The four lines pyxclib prints (P, nDCG, PSP, PSnDCG at k = 1..5, percent); lines without data are left out."""
    names = ([f"{name}@{k}" for k in range(1, 6)] for name in ("P", "nDCG", "PSP", "PSnDCG"))
    return "\n".join(",".join(f"{metrics[key]:.2f}" for key in keys) for keys in names if metrics.keys() >= set(keys))
