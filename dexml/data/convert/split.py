"""Which points become test points: drawn by a seed, alone, by group, or so that some labels stay unseen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def random_rows(n: int, share: float, seed: int) -> NDArray[np.bool_]:
    """[n] of bool, True for the nearest whole number to share * n rows, at least one and not all."""
    test = np.zeros(n, bool)
    test[np.random.default_rng(seed).permutation(n)[: _count(n, share)]] = True
    return test


def whole_groups(groups_N: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """[N] of bool: groups in random order are taken until they hold share * N rows. A group of -1 is a row alone."""
    alone = groups_N < 0
    ids = np.where(alone, groups_N.max(initial=-1) + 1 + np.arange(len(groups_N)), groups_N)
    _, group_N, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    taken = np.searchsorted(np.cumsum(sizes[order]), _count(len(groups_N), share)) + 1
    return np.isin(group_N, order[: min(taken, len(sizes) - 1)])


def unseen_labels(relevance_NL: sparse.csr_matrix, share: float, seed: int) -> NDArray[np.bool_]:
    """[N] of bool: labels in random order are taken, each with all its points, until those are share * N rows.

    So the taken labels have no training point. The last label may go beyond the share.
    """
    n = relevance_NL.shape[0]
    place_L = np.random.default_rng(seed).permutation(relevance_NL.shape[1])
    first_N = np.full(n, relevance_NL.shape[1])  # the earliest place among the labels of each point
    np.minimum.at(first_N, np.repeat(np.arange(n), np.diff(relevance_NL.indptr)), place_L[relevance_NL.indices])
    return first_N <= np.sort(first_N)[_count(n, share) - 1]


def _count(n: int, share: float) -> int:
    return min(max(1, round(share * n)), n - 1)
