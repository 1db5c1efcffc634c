"""Worked examples: E1 (dense, one point without labels), E2 (short lists, a tie, a filter pair)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dexml.evaluation import inverse_propensity
from dexml.index import rank_topk


def csr(rows: Sequence[Iterable[int]], num_labels: int) -> sparse.csr_array:
    """Rows of label sets as a 0/1 matrix."""
    dense = np.zeros((len(rows), num_labels), dtype=np.float32)
    for row, labels in enumerate(rows):
        dense[row, list(labels)] = 1
    return sparse.csr_array(dense)


def lists(rows: Sequence[dict[int, float]], width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rows {id: score} as padded arrays, in the order given."""
    ids, scores = np.full((len(rows), width), -1), np.full((len(rows), width), -np.inf, np.float32)
    for row, pairs in enumerate(rows):
        ids[row, : len(pairs)], scores[row, : len(pairs)] = list(pairs), list(pairs.values())
    return ids, scores


@dataclass
class Example:
    """ids and scores are ranked but not filtered."""

    ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    truth: sparse.csr_array
    filters: sparse.csr_array
    q: npt.NDArray[np.float64]


def e1() -> Example:
    scores = np.array(
        [
            [0.9, 0.8, 0.3, 0.1, 0.05, 0],
            [0.2, 0.9, 0.4, 0.3, 0.1, 0],
            [0.5, 0.4, 0.3, 0.2, 0.1, 0],
            [0.1, 0.2, 0.9, 0.8, 0.7, 0.6],
        ],
        dtype=np.float32,
    )
    ids, ranked = rank_topk(np.tile(np.arange(6), (4, 1)), scores)
    q = inverse_propensity([50, 20, 10, 5, 2, 1], 100, 0.55, 1.5)
    return Example(ids, ranked, csr([{0, 2}, {1}, {}, {0, 1, 2, 3}], 6), csr([{}] * 4, 6), q)


def e2() -> Example:
    rows = [{3: 0.7, 0: 0.7, 5: 0.2}, {4: 0.95, 1: 0.9, 2: 0.1}, {0: 0.5}, {6: 0.4}, {}]
    ids, scores = rank_topk(*lists(rows, 6))
    q = inverse_propensity([40, 25, 12, 8, 5, 3, 1, 0], 100, 0.6, 2.6)
    truth = csr([{0, 3}, {1}, {}, {6, 7}, {2, 5, 6}], 8)
    return Example(ids, scores, truth, csr([{}, {4}, {}, {}, {}], 8), q)
