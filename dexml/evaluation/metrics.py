"""Metrics of ranked label lists: P, R, RP, nDCG, MRR and the propensity-scored PSP and PSnDCG.

Input is always a sparse top-k, never a points x labels score matrix. Conventions that change numbers: the label space
is the full matrix width; points without labels count as 0; equal scores go to the smaller label id; PSP and PSnDCG are
ratios of sums over all points (as in pyxclib); a missing place is a miss. Sums are float64.

Legend: N points (n in one block), K places stored, k places counted, L labels.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dexml.index.search import rank_topk

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Csr = Any  # scipy.sparse csr_array or csr_matrix [N, L]; what is stored and not 0 is a pair

METRIC_COLUMNS = (
    *("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5", "MRR@10"),
    *("PSP@1", "PSP@3", "PSP@5", "R@10", "R@50", "R@100"),
)
"""Columns of the metrics TSV in DEXML's order; R@200, R@300, ... follow where eval_topk reaches them."""

_BLOCK = 8192  # points at a time: temporaries stay near 50 MB at K = 100

__all__ = ["METRIC_COLUMNS", "TopkError", "apply_filters", "compute_metrics", "filter_overfetch", "metric_columns"]
__all__ += ["metrics_row", "one_row_per_point", "rank_topk", "recall_depths", "validate_topk", "xclib_text"]


class TopkError(ValueError):
    """A top-k array, or what it is compared with, breaks the evaluator's contract."""


# ---- the lists ------------------------------------------------------------------------------------------------------


def validate_topk(ids: npt.ArrayLike, num_labels: int, scores: npt.ArrayLike | None = None) -> None:
    """Raise TopkError naming the row unless ids [N, K] are integers in 0..num_labels-1, each at most once a row, with
    -1 only at the end, and no score [N, K] is NaN."""
    ids_NK = _as_ids(ids)
    if scores is not None and np.shape(scores) != ids_NK.shape:
        raise TopkError(f"scores have shape {np.shape(scores)}, ids {ids_NK.shape}")
    for rows in _blocks(len(ids_NK)):
        block = ids_NK[rows]
        in_order = np.sort(block, axis=1)
        faults: dict[str, Mask] = {
            f"an id outside 0..{num_labels - 1}": (block < -1) | (block >= num_labels),
            "the same id twice": (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0),
            "a -1 in front of an id": (block[:, :-1] < 0) & (block[:, 1:] >= 0),
        }
        if scores is not None:
            faults["a NaN score"] = np.isnan(np.asarray(scores)[rows])
        for what, mask in faults.items():
            if mask.any():
                raise TopkError(f"row {rows.start + int(mask.any(axis=1).argmax())} of the top-k has {what}")


def one_row_per_point(
    sample_ids: npt.ArrayLike, ids: npt.ArrayLike, scores: npt.ArrayLike, num_points: int
) -> tuple[Ids, Scores]:
    """Rows of all processes put in the order of the points 0..num_points-1; equal copies (batch padding) are dropped.

    TopkError for a point that is missing, out of range, or there twice with different lists.
    """
    sample, ids_MK, scores_MK = np.asarray(sample_ids), _as_ids(ids), np.asarray(scores, dtype=np.float32)
    if sample.shape != (len(ids_MK),) or scores_MK.shape != ids_MK.shape:
        raise TopkError(
            f"sample_ids {sample.shape}, ids {ids_MK.shape} and scores {scores_MK.shape} do not fit together"
        )
    if ((sample < 0) | (sample >= num_points)).any():
        raise TopkError(f"a sample_id is outside 0..{num_points - 1}")
    present, first, inverse = np.unique(sample, return_index=True, return_inverse=True)
    if len(present) < num_points:
        missing = int(np.setdiff1d(np.arange(num_points), present)[0])
        raise TopkError(
            f"{num_points - len(present)} of {num_points} points have no prediction, first: point {missing}"
        )
    original = first[inverse]
    differs = (ids_MK != ids_MK[original]).any(axis=1) | (scores_MK != scores_MK[original]).any(axis=1)
    if differs.any():
        raise TopkError(f"point {int(sample[differs.argmax()])} has two different predictions")
    return ids_MK[first], scores_MK[first]


def filter_overfetch(filters: Csr) -> int:
    """How many more than k labels to search, so that k remain after filtering: the most filtered cells of one point."""
    return int(np.diff(_canonical(filters).indptr).max(initial=0))


def apply_filters(ids: npt.ArrayLike, scores: npt.ArrayLike, filters: Csr, k: int) -> tuple[Ids, Scores]:
    """Drop the cells stored in filters [N, L] from ranked lists [N, K], close the gaps, cut to k (pad -1 / -inf).

    Warns when lists end short of k that were cut too early: search k + filter_overfetch(filters).
    """
    ids_NK, scores_NK = _as_ids(ids), np.asarray(scores, dtype=np.float32)
    pairs = _canonical(filters)
    _check_rows(ids_NK, pairs, "filters")
    if ids_NK.max(initial=-1) >= pairs.shape[1]:
        raise TopkError(f"label {ids_NK.max()} is beyond the {pairs.shape[1]} labels of the filters")
    if ids_NK.shape[1] < k:
        raise TopkError(f"k={k} but only K={ids_NK.shape[1]} places are stored: search at least k labels")
    out_ids, out_scores, short = ids_NK[:, :k].copy(), scores_NK[:, :k].copy(), 0
    for rows in _blocks(len(ids_NK)):
        drop = _contains(pairs, rows, ids_NK[rows])
        hit = np.flatnonzero(drop.any(axis=1))
        at = rows.start + hit
        short += _count_short(ids_NK[at], drop[hit], k, pairs.shape[1])
        order = np.argsort(drop[hit], axis=1, kind="stable")
        out_ids[at] = np.take_along_axis(np.where(drop[hit], -1, ids_NK[at]), order, axis=1)[:, :k]
        out_scores[at] = np.take_along_axis(np.where(drop[hit], -np.inf, scores_NK[at]), order, axis=1)[:, :k]
    if short:
        warnings.warn(f"filtering left {short} lists with fewer than k={k} labels: search more labels", stacklevel=2)
    return out_ids, out_scores


def _count_short(ids_nK: Ids, drop_nK: Mask, k: int, num_labels: int) -> int:
    """Lists that were full, so that labels may lie beyond them, and now hold fewer than k."""
    full = (ids_nK >= 0).all(axis=1) & (ids_nK.shape[1] < num_labels)
    return int((full & (ids_nK.shape[1] - drop_nK.sum(axis=1) < k)).sum())


# ---- the metrics ----------------------------------------------------------------------------------------------------


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
    ids_NK, truth = _as_ids(topk_ids), _canonical(relevance_csr)
    places, num_labels = ids_NK.shape[1], truth.shape[1]
    recall_ks = tuple(recall_depths(places) if recall_ks is None else recall_ks)
    mrr_ks = tuple(k for k in (10,) if k <= places) if mrr_k is None else (mrr_k,)
    _check_rows(ids_NK, truth, "relevance")
    _check_depths(ks, (*recall_ks, *mrr_ks), places, num_labels)
    validate_topk(ids_NK, num_labels)
    depth = max((*ks, *recall_ks, *mrr_ks), default=0)
    if filters is not None:
        truth = _without_filtered(truth, _canonical(filters))
        ids_NK, _ = apply_filters(ids_NK, np.zeros(ids_NK.shape, np.float32), filters, depth)
    weights = None if inv_propensity is None else _as_weights(inv_propensity, num_labels)
    sums: dict[str, float] = {}
    for rows in _blocks(len(ids_NK)):
        block = ids_NK[rows, :depth]
        hits = _contains(truth, rows, block)
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
    owner, label = _cells(truth, rows)  # owner is ascending, so it is the same before and after the sort
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


# ---- checks and sparse rows -----------------------------------------------------------------------------------------


def _as_ids(ids: npt.ArrayLike) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "iu":
        raise TopkError(f"top-k ids must be an integer [points, k] array, not {array.dtype} {array.shape}")
    return array.astype(np.int64, copy=False)


def _as_weights(inv_propensity: npt.ArrayLike, num_labels: int) -> Floats:
    weights = np.asarray(inv_propensity, dtype=np.float64)
    if weights.shape != (num_labels,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise TopkError(f"inv_propensity must be {num_labels} positive numbers, one a label; got shape {weights.shape}")
    return weights


def _check_rows(ids_NK: Ids, matrix: Csr, name: str) -> None:
    if matrix.shape[0] != len(ids_NK):
        raise TopkError(f"the top-k has {len(ids_NK)} rows, {name} {matrix.shape[0]}: are they of the same split?")


def _check_depths(ks: Sequence[int], deep_ks: Sequence[int], places: int, num_labels: int) -> None:
    for k in (*ks, *deep_ks):
        if not 1 <= k <= places:
            raise TopkError(
                f"k={k} asked, but K={places} places are stored: 1 <= k <= K; search more labels or lower k"
            )
    if ks and max(ks) > num_labels:
        raise TopkError(f"k={max(ks)} is more than the {num_labels} labels there are: lower ks")


def _canonical(matrix: Csr) -> Csr:
    """The matrix as CSR with sorted columns, each cell once, none 0; the caller's stays as it is."""
    csr = sparse.csr_array(matrix)
    if not csr.has_canonical_format or not csr.data.all():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def _without_filtered(truth: Csr, filters: Csr) -> Csr:
    if truth.shape != filters.shape:
        raise TopkError(f"filters have shape {filters.shape}, relevance {truth.shape}")
    both = sparse.csr_array(truth.astype(bool).multiply(filters.astype(bool)))
    if not both.nnz:
        return truth
    warnings.warn(f"{both.nnz} true pairs are also filter pairs: they are not counted as true", stacklevel=3)
    return _canonical(truth.astype(bool).astype(np.int8) - both.astype(np.int8))


def _cells(matrix: Csr, rows: slice) -> tuple[Ids, Ids]:
    """(row within the block, column) of the stored cells of a block, in row and column order."""
    bounds = matrix.indptr[rows.start : rows.stop + 1]
    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    return owner, matrix.indices[bounds[0] : bounds[-1]].astype(np.int64)


def _contains(matrix: Csr, rows: slice, ids_nK: Ids) -> Mask:
    """[n, K]: is (row, id) stored in the matrix? -1 never is."""
    owner, column = _cells(matrix, rows)
    width = matrix.shape[1]
    stored = np.append(owner * width + column, np.iinfo(np.int64).max)  # the end stops every search
    wanted = np.where(ids_nK < 0, -1, np.arange(len(ids_nK))[:, None] * width + ids_nK)
    return np.asarray(stored[np.searchsorted(stored, wanted)] == wanted)


def _blocks(total: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, total)) for start in range(0, total, _BLOCK))
