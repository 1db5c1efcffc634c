"""Spherical k-means of one set of labels into any number of parts, of equal size if wanted.

For few parts: n x k similarities are held at once, and no BLAS is used, so the result does not depend on threads.

n labels, k parts, V columns of the features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.config import ConfigError
from dexml.data.batching import hash64
from dexml.heads.clustering import EPS
from dexml.heads.pairs import BLOCK, Dense, Features, Ints, Sparse, checked, unit_rows


def kmeans(
    features: Dense | Sparse,
    k: int,
    seed: int = 0,
    n_init: int = 1,
    balanced: bool = True,
    place: int = 0,
) -> NDArray[np.int64]:
    """The part of every label [n], 0 .. min(k, n) - 1, best mean similarity of `n_init` restarts; no part is empty.

    Balanced parts differ by at most one label. Where unbalanced ones leave a part empty, the balanced ones are taken.
    `place` tells the random streams of the nodes of a tree apart.
    """
    if k < 1 or n_init < 1:
        raise ConfigError(f"k is {k}, n_init {n_init}: 1 is the least")
    features = checked(features)
    n = features.shape[0]
    k = min(k, n)
    best, value = np.arange(n), -np.inf
    for restart in range(n_init if 1 < k < n else 0):
        drawn = np.argsort(hash64(seed, place, restart, np.arange(n)), kind="stable")[:k]
        part, found = _lloyd(features, np.sort(drawn), balanced)
        if found > value:
            best, value = part, found
    return best if k > 1 else np.zeros(n, np.int64)


def assign_balanced(near: NDArray[np.floating]) -> Ints:
    """The part of every label [n]: floor(n / k) a part, one more for n mod k of them.

    Labels choose in turn, by their largest similarity (equal ones: the smaller label), each the nearest part with room
    (equal ones: the smaller part). In one step all choose that come before a part is full: k steps or a few more.

    Args:
        near: [n, k] similarities.
    """
    n, k = near.shape
    room, extra = divmod(n, k)
    waiting = np.argsort(-near.max(axis=1), kind="stable")
    part, held, is_open = np.full(n, -1), np.zeros(k, np.int64), np.ones(k, bool)
    while len(waiting):
        is_open &= held < room + (extra > 0)
        choice = np.where(is_open, near[waiting], -np.inf).argmax(axis=1)
        order = np.argsort(choice, kind="stable")
        counts = np.bincount(choice, minlength=k)
        turn = np.empty(len(waiting), np.int64)  # how many a part holds when this label has chosen it
        turn[order] = np.arange(1, len(waiting) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
        turn += held[choice]
        full = np.flatnonzero(turn == room + (extra > 0))
        until = full[0] + 1 if len(full) else len(waiting)
        part[waiting[:until]] = choice[:until]
        held += np.bincount(choice[:until], minlength=k)
        extra -= len(full) > 0
        waiting = waiting[until:]
    return part


def _lloyd(features: Features, first: Ints, balanced: bool) -> tuple[Ints, float]:
    """Parts [n] and the mean similarity from these first centres [k] (labels)."""
    k, centres, value = len(first), features[first], -1.0
    while True:
        near = _similarities(features, centres)
        part = assign_balanced(near) if balanced else near.argmax(axis=1)
        if not balanced and len(np.unique(part)) < k:
            part = assign_balanced(near)
        before, value = value, float(near[np.arange(len(part)), part].mean(dtype=np.float64))
        if value - before < EPS:
            return part, value
        ones = np.ones(len(part), features.dtype)
        centres = unit_rows(sparse.csr_array((ones, (part, np.arange(len(part)))), shape=(k, len(part))) @ features)


def _similarities(features: Features, centres: Any) -> NDArray[np.floating]:
    """[n, k]"""
    if not isinstance(features, np.ndarray):
        return features @ sparse.csr_array(centres).T.toarray()
    rows = [np.einsum("nd,kd->nk", features[i : i + BLOCK], centres) for i in range(0, len(features), BLOCK)]
    return np.concatenate(rows)
