"""Ranked label lists: their contract, rows of several processes, filters; and the sparse rows they are compared with.

A list is a row of ids [N, K], best first, each id at most once, -1 (score -inf) only behind the last real one. Nothing
here makes a points x labels array: blocks of points are compared with the stored cells of a CSR matrix.

Legend: N points (n in one block), M rows with copies, K places stored, k places kept, L labels.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Csr = Any  # scipy.sparse csr_array or csr_matrix [N, L]; what is stored and not 0 is a pair

_BLOCK = 8192  # points at a time: temporaries stay near 50 MB at K = 100
_CHECKED = 2048  # points validated at a time, and
_COMPARED = 1 << 18  # places compared at a time: both stay in a processor's cache


class TopkError(ValueError):
    """A top-k array, or what it is compared with, breaks the evaluator's contract."""


# ---- the lists ------------------------------------------------------------------------------------------------------


def validate_topk(ids: npt.ArrayLike, num_labels: int, scores: npt.ArrayLike | None = None) -> None:
    """Raise TopkError naming the row unless ids [N, K] are integers in 0..num_labels-1, each at most once a row, with
    -1 only at the end, and no score [N, K] is NaN."""
    ids_NK = as_ids(ids)
    if scores is not None and np.shape(scores) != ids_NK.shape:
        raise TopkError(f"scores have shape {np.shape(scores)}, ids {ids_NK.shape}")
    for rows in blocks(len(ids_NK), _CHECKED):
        faults = _faults(ids_NK[rows], num_labels)
        if scores is not None:
            faults["a NaN score"] = np.isnan(np.asarray(scores)[rows])
        for what, mask in faults.items():
            if mask.any():
                raise TopkError(f"row {rows.start + int(mask.any(axis=1).argmax())} of the top-k has {what}")


def _faults(ids_nK: Ids, num_labels: int) -> dict[str, Mask]:
    """Cells at fault by kind; looks closer only at what could be one."""
    in_order = np.sort(ids_nK, axis=1)
    lowest, highest = in_order[:, :1], in_order[:, -1:]
    faults = {f"an id outside 0..{num_labels - 1}": (lowest < -1) | (highest >= num_labels)}
    faults["the same id twice"] = in_order[:, 1:] == in_order[:, :-1]
    if (lowest < 0).any():
        faults["the same id twice"] &= in_order[:, 1:] >= 0
        faults["a -1 in front of an id"] = (ids_nK[:, :-1] < 0) & (ids_nK[:, 1:] >= 0)
    return faults


def one_row_per_point(
    sample_ids: npt.ArrayLike, ids: npt.ArrayLike, scores: npt.ArrayLike, num_points: int
) -> tuple[Ids, Scores]:
    """Rows of all processes put in the order of the points 0..num_points-1; equal copies (batch padding) are dropped.

    TopkError for a point that is missing, out of range, or there twice with different lists.
    """
    sample, ids_MK, scores_MK = np.asarray(sample_ids), as_ids(ids), np.asarray(scores, dtype=np.float32)
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
    return int(np.diff(canonical(filters).indptr).max(initial=0))


def apply_filters(ids: npt.ArrayLike, scores: npt.ArrayLike, filters: Csr, k: int) -> tuple[Ids, Scores]:
    """Drop the cells stored in filters [N, L] from ranked lists [N, K], close the gaps, cut to k (pad -1 / -inf).

    Warns when lists end short of k that were cut too early: search k + filter_overfetch(filters).
    """
    ids_NK, scores_NK = as_ids(ids), np.asarray(scores, dtype=np.float32)
    pairs = canonical(filters)
    check_rows(ids_NK, pairs, "filters")
    if ids_NK.max(initial=-1) >= pairs.shape[1]:
        raise TopkError(f"label {ids_NK.max()} is beyond the {pairs.shape[1]} labels of the filters")
    if ids_NK.shape[1] < k:
        raise TopkError(f"k={k} but only K={ids_NK.shape[1]} places are stored: search at least k labels")
    out_ids, out_scores, short = ids_NK[:, :k].copy(), scores_NK[:, :k].copy(), 0
    for rows in blocks(len(ids_NK), _BLOCK):
        drop = contains(pairs, rows, ids_NK[rows])
        hit = np.flatnonzero(drop.any(axis=1))
        at = rows.start + hit
        short += _count_short(ids_NK[at], drop[hit], k, pairs.shape[1])
        order = np.argsort(drop[hit], axis=1, kind="stable")[:, :k]
        out_ids[at] = np.take_along_axis(np.where(drop[hit], -1, ids_NK[at]), order, axis=1)
        out_scores[at] = np.take_along_axis(np.where(drop[hit], -np.inf, scores_NK[at]), order, axis=1)
    if short:
        warnings.warn(f"filtering left {short} lists with fewer than k={k} labels: search more labels", stacklevel=2)
    return out_ids, out_scores


def _count_short(ids_nK: Ids, drop_nK: Mask, k: int, num_labels: int) -> int:
    """Lists that were full, so that labels may lie beyond them, and now hold fewer than k."""
    full = (ids_nK >= 0).all(axis=1) & (ids_nK.shape[1] < num_labels)
    return int((full & (ids_nK.shape[1] - drop_nK.sum(axis=1) < k)).sum())


# ---- checks and sparse rows -----------------------------------------------------------------------------------------


def as_ids(ids: npt.ArrayLike) -> Ids:
    """The ids as int64 [N, K], without a copy where they are that already; TopkError if they are not integers so."""
    array = np.asarray(ids)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "iu":
        raise TopkError(f"top-k ids must be an integer [points, k] array, not {array.dtype} {array.shape}")
    return array.astype(np.int64, copy=False)


def check_rows(ids_NK: Ids, matrix: Csr, name: str) -> None:
    """TopkError unless the matrix `name` has a row for every list."""
    if matrix.shape[0] != len(ids_NK):
        raise TopkError(f"the top-k has {len(ids_NK)} rows, {name} {matrix.shape[0]}: are they of the same split?")


def canonical(matrix: Csr) -> Csr:
    """The matrix as CSR with sorted columns, each cell once, none 0; the caller's stays as it is."""
    csr = sparse.csr_array(matrix)
    if not csr.has_canonical_format or not csr.data.all():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def cells(matrix: Csr, rows: slice) -> tuple[Ids, Ids]:
    """(row within the block, column) of the stored cells of a block, in row and column order."""
    bounds = matrix.indptr[rows.start : rows.stop + 1]
    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    return owner, matrix.indices[bounds[0] : bounds[-1]].astype(np.int64)


def find(matrix: Csr, rows: slice, ids_nK: Ids) -> tuple[Ids, Ids, Ids]:
    """(row, place, column) of the stored cells of a block of rows that its lists hold, in row and column order.

    Every stored cell is compared with its list: truth is so sparse that this beats looking up every place.
    """
    owner, column = cells(matrix, rows)
    places = ids_nK.shape[1]
    parts = [
        np.flatnonzero(ids_nK[owner[some]] == column[some, None]) + some.start * places
        for some in blocks(len(owner), max(1, _COMPARED // places))
    ]
    cell, place = np.divmod(np.concatenate(parts or [np.empty(0, np.int64)]), places)
    return owner[cell], place, column[cell]


def contains(matrix: Csr, rows: slice, ids_nK: Ids) -> Mask:
    """[n, K]: is (row, id) stored in the matrix? -1 never is."""
    found = np.zeros(ids_nK.shape, bool)
    row, place, _ = find(matrix, rows, ids_nK)
    found[row, place] = True
    return found


def blocks(total: int, size: int) -> Iterator[slice]:
    """0..total in slices of `size` points, the last one shorter."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
