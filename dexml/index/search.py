"""Inner-product search, ranked by (score descending, label id ascending), so that every run gives the same lists.

FAISS picks any of several equal scores at the cut. We fetch a few more than asked; where the tie runs past even those,
the row is searched again for many more. This holds for what a search looks at: everything, or the candidates of an
approximate index.

Scores are those of FAISS: equal vectors score equally wherever they stand; the last bit of a score may change with the
number of queries in a block, as in any BLAS.

Legend: N queries, S labels, D width, K or k places.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Find = Callable[[Scores, int], tuple[Scores, Ids]]
"""FAISS's search: queries [N, D] and a number of places K to scores and ids [N, K], id -1 where nothing was found"""

LARGEST = 1e15
"""the largest value that approximate kinds take: products of two cannot overflow float32"""
_OVERFETCH = 16
_WIDEN = 8
_OVERFLOW = "inner products overflow float32: normalise the embeddings"
_WIDE_CELLS = 1 << 22  # most candidates held at once while ties are settled: 50 MB


@dataclass(frozen=True)
class Source:
    """What is searched: `count` labels of `width` dimensions."""

    find: Find
    count: int
    width: int
    exhaustive: bool = True
    """whether `find` looks at every label, so that none can be missing"""


class SearchInputError(ValueError):
    """Embeddings, ids or a k that cannot be searched."""


def rank_topk(ids: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Ids, Scores]:
    """Sort every row by (-score, id); id -1 goes last with score -inf. Both [N, K]; the input is left as it was."""
    ids_NK = np.array(ids, dtype=np.int64)
    scores_NK = np.array(scores, dtype=np.float32)
    if ids_NK.ndim != 2 or ids_NK.shape != scores_NK.shape:
        raise SearchInputError(f"ids {ids_NK.shape} and scores {scores_NK.shape} must be 2-D and of one shape")
    if np.isnan(scores_NK).any():
        raise SearchInputError(f"row {int(np.isnan(scores_NK).any(axis=1).argmax())}: a score is NaN")
    scores_NK[ids_NK < 0] = -np.inf
    rows = np.flatnonzero(_out_of_order(ids_NK, scores_NK))
    if len(rows):
        order = np.lexsort((ids_NK[rows], -scores_NK[rows], ids_NK[rows] < 0), axis=-1)
        ids_NK[rows] = np.take_along_axis(ids_NK[rows], order, axis=1)
        scores_NK[rows] = np.take_along_axis(scores_NK[rows], order, axis=1)
    return ids_NK, scores_NK


def _out_of_order(ids_NK: Ids, scores_NK: Scores) -> npt.NDArray[np.bool_]:
    """[N]: rows with a neighbouring pair the wrong way round. Sorting only these is most of the speed after FAISS."""
    left_id, right_id = ids_NK[:, :-1], ids_NK[:, 1:]
    left, right = scores_NK[:, :-1], scores_NK[:, 1:]
    swapped = (left < right) | ((left == right) & (left_id > right_id) & (right_id >= 0))
    swapped |= (left_id < 0) & (right_id >= 0)
    return np.asarray(swapped.any(axis=1))


def merge_topk(parts: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]], k: int) -> tuple[Ids, Scores]:
    """Best k of the lists (ids, scores: [N, k_i]) that disjoint label shards gave for the same N queries."""
    if not parts:
        raise SearchInputError("nothing to merge: give at least one (ids, scores) pair")
    check_k(k)
    counts = [np.shape(ids)[0] for ids, _ in parts]
    if len(set(counts)) > 1:
        raise SearchInputError(f"the parts hold {counts} rows: every shard must answer the same queries")
    ids_NK = np.concatenate([np.asarray(ids, dtype=np.int64) for ids, _ in parts], axis=1)
    scores_NK = np.concatenate([np.asarray(scores, dtype=np.float32) for _, scores in parts], axis=1)
    return _fit_width(*rank_topk(ids_NK, scores_NK), k)


def _fit_width(ids_NK: Ids, scores_NK: Scores, k: int) -> tuple[Ids, Scores]:
    """Cut or pad (-1, -inf) to k columns."""
    missing = ((0, 0), (0, max(0, k - ids_NK.shape[1])))
    ids_Nk = np.pad(ids_NK[:, :k], missing, constant_values=-1)
    return ids_Nk, np.pad(scores_NK[:, :k], missing, constant_values=-np.inf)


def exact_topk(queries: npt.ArrayLike, labels: npt.ArrayLike, k: int, block: int = 1024) -> tuple[Ids, Scores]:
    """Best k of labels [S, D] for each of queries [N, D] by inner product: ids int64 [N, k], scores float32 [N, k].

    Equal scores: smaller id first, at the cut too. k > S pads with -1 / -inf. ValueError for non-finite input.
    """
    return FlatSearcher(labels).search(queries, k, block)


class FlatSearcher:
    """Exact search over a fixed [S, D] array; keeps the FAISS index so that queries may come block by block."""

    def __init__(self, labels: npt.ArrayLike) -> None:
        import faiss

        label_SD = as_embeddings(labels, "labels")
        self._index = faiss.IndexFlatIP(label_SD.shape[1])
        self._index.add(label_SD)

    def search(self, queries: npt.ArrayLike, k: int, block: int = 1024) -> tuple[Ids, Scores]:
        """As `exact_topk`, `block` queries at a time."""
        return search_blocks(Source(self._index.search, self._index.ntotal, self._index.d), queries, k, block)


def search_blocks(source: Source, queries: npt.ArrayLike, k: int, block: int = 1024) -> tuple[Ids, Scores]:
    """As `exact_topk` among what `source` finds, by the ids that it gives."""
    check_k(k)
    if block < 1:
        raise SearchInputError(f"block={block}: search at least one query at a time")
    query_ND = as_embeddings(queries, "queries")
    if query_ND.shape[1] != source.width:
        raise SearchInputError(
            f"queries have width {query_ND.shape[1]}, labels {source.width}: encode both with one model"
        )
    if not source.exhaustive and query_ND.size and np.abs(query_ND).max() > LARGEST:
        raise SearchInputError(_OVERFLOW)
    ids_Nk = np.full((len(query_ND), k), -1, dtype=np.int64)
    scores_Nk = np.full((len(query_ND), k), -np.inf, dtype=np.float32)
    width = min(k, source.count)
    for rows in _blocks(len(query_ND), block) if width else ():
        ids_Nk[rows, :width], scores_Nk[rows, :width] = _search_block(source, query_ND[rows], width, width + _OVERFETCH)
    return ids_Nk, scores_Nk


def _search_block(source: Source, query_ND: Scores, k: int, fetch: int) -> tuple[Ids, Scores]:
    """Best k of `fetch` candidates; rows whose k-th score still stands at the end are searched again, wider."""
    fetch = min(fetch, source.count)
    found_scores, found_ids = source.find(query_ND, fetch)
    missing = found_ids < 0
    if (source.exhaustive and missing.any()) or not np.isfinite(found_scores[~missing]).all():  # FAISS drops NaN
        raise SearchInputError(_OVERFLOW)
    ids_NF, scores_NF = rank_topk(found_ids, found_scores)
    if fetch < source.count:
        undecided = np.flatnonzero((scores_NF[:, k - 1] == scores_NF[:, -1]) & (ids_NF[:, -1] >= 0))
        for part in _blocks(len(undecided), max(1, _WIDE_CELLS // (_WIDEN * fetch))):
            rows = undecided[part]
            ids_NF[rows, :k], scores_NF[rows, :k] = _search_block(source, query_ND[rows], k, _WIDEN * fetch)
    return ids_NF[:, :k], scores_NF[:, :k]


def _blocks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def check_k(k: int) -> None:
    """Raise unless k >= 1."""
    if k < 1:
        raise SearchInputError(f"k={k}: ask for at least one label")


def as_embeddings(array: npt.ArrayLike, name: str) -> Scores:
    """`array` as contiguous float32 [rows, width]; ValueError naming the first row that holds NaN or infinity."""
    given = np.asarray(array)
    if given.ndim != 2 or given.shape[1] == 0 or given.dtype.kind not in "fiu":
        raise SearchInputError(f"{name} must be a real [rows, width] array, not {given.dtype} {given.shape}")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite and is named below
        rows_ND = np.ascontiguousarray(given, dtype=np.float32)
    for rows in _blocks(len(rows_ND), 65536):
        finite = np.isfinite(rows_ND[rows]).all(axis=1)
        if not finite.all():
            raise SearchInputError(f"{name} row {rows.start + int(finite.argmin())} holds NaN or infinity")
    return rows_ND
