"""Seconds of searching, of several indexes side by side."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from dexml.index.index import LabelIndex
from dexml.index.search import Scores

ALONE = 100  # queries that are searched one at a time
_TURNS = 5

Clock = Callable[[], float]


def seconds_per_query(
    indexes: Sequence[LabelIndex], queries: Scores, k: int, block: int = 1024, clock: Clock = time.perf_counter
) -> npt.NDArray[np.float64]:
    """[5, indexes] seconds a query takes when all of queries [N, D] come in blocks, in each of five turns.

    The indexes take turns: what else the machine does meets them alike, and ratios are taken within a turn.
    """
    taken = np.empty((_TURNS, len(indexes)))
    for index in indexes:  # threads are started, memory is taken
        index.search(queries[:block], k, block)
    for turn in range(_TURNS):
        for place, index in enumerate(indexes):
            begin = clock()
            index.search(queries, k, block)
            taken[turn, place] = clock() - begin
    return taken / len(queries)


def milliseconds_and_gains(
    indexes: Sequence[LabelIndex], queries: Scores, k: int, block: int = 1024, clock: Clock = time.perf_counter
) -> list[tuple[float, float]]:
    """(milliseconds a query, times faster than the first index) of each index: medians of five turns."""
    taken = seconds_per_query(indexes, queries, k, block, clock)
    gains = np.median(taken[:, :1] / taken, axis=0)
    return list(zip((1000 * np.median(taken, axis=0)).tolist(), gains.tolist(), strict=True))
