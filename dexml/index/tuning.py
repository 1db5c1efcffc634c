"""How much an approximate index finds of what exact search finds, and the cheapest search that finds enough.

Legend: N queries, K places.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dexml.index.index import LabelIndex
from dexml.index.rows import LabelIndexError
from dexml.index.search import Ids, as_embeddings, check_k
from dexml.index.speed import milliseconds_and_gains


@dataclass(frozen=True)
class Tuning:
    """What `tune` chose."""

    k: int
    recall: float
    """recall@k against exact search over the same queries, 0 to 1"""
    ms_per_query: float
    """median of five searches of all queries"""
    parameters: dict[str, int]
    """of the index, the tuned one among them"""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recall_at(found_ids: npt.ArrayLike, exact_ids: npt.ArrayLike, k: int) -> float:
    """Share of the first k of exact_ids [N, >=k] that are among the first k of found_ids; -1 is no label."""
    found_Nk, exact_Nk = np.asarray(found_ids)[:, :k], np.asarray(exact_ids)[:, :k]
    both = np.sort(np.concatenate([found_Nk, exact_Nk], axis=1), axis=1)
    hits = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)  # ids are distinct within each of the two
    return float(hits.sum() / max(1, (exact_Nk >= 0).sum()))


def recall_report(
    index: LabelIndex, queries: npt.ArrayLike, exact_ids: npt.ArrayLike | None = None, ks: Sequence[int] = (1, 10, 100)
) -> dict[int, float]:
    """recall@k for each of `ks` on queries [N, D].

    exact_ids [N, >=max(ks)] are the ids of an exact search; by default one over the vectors that the index keeps.
    Where there are fewer labels than k, all of them count.
    """
    exact = _reference(index, queries, exact_ids, max(ks))
    found = index.search(queries, max(ks))[0]
    return {k: recall_at(found, exact, k) for k in ks}


def tune(
    index: LabelIndex,
    queries: npt.ArrayLike,
    recall: float = 0.99,
    k: int = 100,
    exact_ids: npt.ArrayLike | None = None,
) -> Tuning:
    """Set the index's nprobe or efSearch to the least value that finds `recall` of the best k of queries [N, D].

    The index keeps the value, and `save` saves it. The same index and queries give the same value. exact_ids as in
    `recall_report`.

    Raises:
        LabelIndexError: the kind cannot find so many, or has nothing to tune and does not; the index is left as it was.
    """
    if not 0 < recall <= 1:
        raise LabelIndexError(f"recall {recall}: a share above 0 and up to 1 is needed")
    exact = _reference(index, queries, exact_ids, k)
    if not index.knob:
        reached = recall_at(index.search(queries, k)[0], exact, k)
        if reached < recall:
            raise LabelIndexError(_too_low(index, reached, recall, k, "has nothing to tune"))
    else:
        reached = _turn(index, queries, recall, k, exact)
    ms_per_query = milliseconds_and_gains([index], as_embeddings(queries, "queries"), k)[0][0]
    return Tuning(k, reached, ms_per_query, index.parameters)


def _turn(index: LabelIndex, queries: npt.ArrayLike, wanted: float, k: int, exact: Ids) -> float:
    """Doubles the knob until it reaches the recall, then halves the gap: recall grows with it. Returns the recall."""
    before, (low, most) = index.parameters[index.knob], index.knob_range(k)
    tried: dict[int, float] = {}

    def enough(value: int) -> bool:
        index.set_knob(value)
        tried[value] = recall_at(index.search(queries, k)[0], exact, k)
        return tried[value] >= wanted

    high = low
    while not enough(high):
        if high == most:
            index.set_knob(before)
            raise LabelIndexError(_too_low(index, tried[high], wanted, k, f"at {index.knob}={most}"))
        low, high = high + 1, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    index.set_knob(high)
    return tried[high]


def _reference(index: LabelIndex, queries: npt.ArrayLike, exact_ids: npt.ArrayLike | None, k: int) -> Ids:
    """[N, >=k] exact ids; LabelIndexError where they are missing, too few or of other queries."""
    check_k(k)
    if not len(np.asarray(queries)) or not len(index):
        raise LabelIndexError("recall needs at least one query and one label")
    if exact_ids is None:
        if not index.lossless:
            raise LabelIndexError(
                f"kind {index.kind!r} keeps rounded vectors: give the ids that an exact search found (exact_ids)"
            )
        return LabelIndex.build(index.vectors(), index.ids).search(queries, k)[0]
    exact = np.asarray(exact_ids)
    if exact.dtype.kind not in "iu" or exact.ndim != 2 or len(exact) != len(np.asarray(queries)) or exact.shape[1] < k:
        raise LabelIndexError(
            f"exact_ids must be whole numbers [{len(np.asarray(queries))}, {k} or more], not {exact.dtype} "
            f"{exact.shape}"
        )
    return exact


def _too_low(index: LabelIndex, reached: float, wanted: float, k: int, why: str) -> str:
    better = {
        "hnsw": "build it with a larger M or efConstruction",
        "ivfpq": "build it with more parts, or take ivf",
        "pq": "build it with more parts, or take sq8",
    }.get(index.kind, "take flat, ivf or hnsw")
    return f"kind {index.kind!r} finds {reached:.4f} of the best {k}, not {wanted:g} ({why}): {better}"
