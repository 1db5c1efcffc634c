"""Balanced clusters of labels by recursive spherical 2-means, for any number of labels and clusters.

The algorithm of AttentionXML (arXiv 1811.01727): two labels of a node are its first centres; the labels that are
nearer to the first go left, as many as the left child must hold; the centres become the normalised sums, until the mean
similarity gains less than EPS. All nodes of a depth are split together. The result of a node depends on the features,
the seed and the place of the node alone: not on threads, nor on how nodes share memory.

L labels, N nodes of a depth, n labels of a group of nodes, R restarts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dexml.config import ConfigError
from dexml.data.batching import hash64
from dexml.heads.pairs import Dense, Features, Ints, Sparse, checked, pairs_of

EPS = 1e-4
GROUP = 1 << 16  # labels whose nodes are split at a time, unless one node has more


def bisect(
    features: Dense | Sparse,
    n_clusters: int,
    seed: int = 0,
    n_init: int = 1,
    block: int = 0,
) -> list[NDArray[np.int32]]:
    """The cluster of every label [L] at each depth, from the one root to min(n_clusters, L) clusters.

    Sizes at a depth differ by at most one if `n_clusters` is a power of two, those at the last depth always. Clusters
    are numbered so that the children of 0 come first, then those of 1, and so on; one that is not split keeps a single
    child. DataError for features that are not finite.

    Args:
        features: [L, V], dense or sparse; rows are normalised here, rows of zeros are legal.
        n_init: restarts of each node, of which the best counts.
        block: if not 0, clusters are filled with this many labels each and only the last may hold fewer.
    """
    if n_clusters < 1 or n_init < 1 or block < 0:
        raise ConfigError(f"n_clusters is {n_clusters}, n_init {n_init}, block {block}: 1, 1 and 0 are the least")
    features = checked(features)
    n_labels = features.shape[0]
    if block:
        n_clusters = -(-n_labels // block)
    node = np.zeros(n_labels, np.int64)
    clusters, place = np.array([min(n_clusters, n_labels)]), np.ones(1, np.int64)
    levels = [node.astype(np.int32)]
    while clusters.max() > 1:
        sizes = np.bincount(node, minlength=len(clusters))
        left = _left_sizes(sizes, clusters, block)
        side = _split(features, node, left, _keys(seed, place, n_init))
        split = clusters > 1
        child = np.cumsum(1 + split) - (1 + split)
        node = child[node] + side
        clusters = _interleave(np.where(split, clusters // 2, 1), clusters - clusters // 2, split)
        place = _interleave(2 * place, 2 * place + 1, split)
        levels.append(node.astype(np.int32))
    return levels


def block_order(features: Dense | Sparse, block: int, seed: int = 0, n_init: int = 1) -> NDArray[np.int64]:
    """Labels [L] in an order whose consecutive blocks of `block` labels are clusters, only the last one shorter."""
    if block < 1:
        raise ConfigError(f"block is {block}: 1 label is the least")
    return np.argsort(bisect(features, 1, seed, n_init, block)[-1], kind="stable")


def split_nodes(features: Features, rows: Ints, node: Ints, left: Ints, starts: Ints) -> tuple[NDArray[np.int8], Ints]:
    """The side of every row [n] (0 left, 1 right) and the mean similarity of every node [N], best of R restarts.

    Args:
        rows: [n] of `features`, by ascending node, then by label.
        node: [n], 0..N-1, each with two rows or more.
        left: [N], rows that go left.
        starts: [R, N, 2], the positions in `rows` of the first two centres.
    """
    best = np.full(len(left), -np.inf)
    side = np.zeros(len(rows), np.int8)
    for start in starts:
        found, value = _two_means(features, rows, node, left, start)
        better = value > best
        best = np.where(better, value, best)
        side = np.where(better[node], found, side)
    return side, best


def _two_means(
    features: Features, rows: Ints, node: Ints, left: Ints, start: Ints
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    n_nodes, sizes = len(left), np.bincount(node, minlength=len(left))
    side = np.full(len(rows), -1, np.int8)
    side[start] = [0, 1]
    value = np.full(n_nodes, -1.0)
    active, held = np.ones(n_nodes, bool), np.arange(len(rows))
    pairs = pairs_of(features, rows, node, n_nodes)
    while active.any():
        going = np.flatnonzero(active[node])
        if 2 * len(going) < len(held):
            held, pairs = going, pairs_of(features, rows[going], node[going], n_nodes)
        near = pairs.similarities(side[held])
        chosen = _halves(near[:, 1] - near[:, 0], node[held], left)
        side[held] = np.where(active[node[held]], chosen, side[held])
        sums = np.bincount(node[held], np.where(chosen, near[:, 1], near[:, 0]), n_nodes)
        gained = active & (sums / sizes - value >= EPS)
        value = np.where(active, sums / sizes, value)
        active = gained
    return side, value


def _halves(gap: NDArray[np.floating], node: Ints, left: Ints) -> NDArray[np.int8]:
    """0 for the `left` smallest gaps of each node, else 1; of equal gaps the earlier row is the smaller."""
    order = np.lexsort((gap, node))
    rank = np.empty(len(gap), np.int64)
    rank[order] = np.arange(len(gap)) - np.searchsorted(node, node)
    return (rank >= left[node]).astype(np.int8)


def _split(features: Features, node: Ints, left: Ints, keys: NDArray[np.uint64]) -> NDArray[np.int8]:
    """The side of every label [L]; labels of nodes with left == 0 are not looked at and get 0."""
    side = np.zeros(len(node), np.int8)
    rows = np.argsort(node, kind="stable")
    for nodes in _groups(node, left):
        own = rows[np.isin(node[rows], nodes)] if len(nodes) < len(left) else rows
        local = np.searchsorted(nodes, node[own])
        starts = _starts(keys[:, nodes], np.bincount(local))
        side[own] = split_nodes(features, own, local, left[nodes], starts)[0]
    return side


def _groups(node: Ints, left: Ints) -> Iterator[Ints]:
    """The nodes to split, in groups of about GROUP labels."""
    nodes = np.flatnonzero(left)
    ends = np.cumsum(np.bincount(node, minlength=len(left))[nodes])
    for group in np.split(nodes, np.flatnonzero(np.diff(ends // GROUP)) + 1):
        if len(group):
            yield group


def _left_sizes(sizes: Ints, clusters: Ints, block: int) -> Ints:
    """Labels of the left child, which gets the smaller half of the clusters; 0 for a node that is not split."""
    half = clusters // 2
    if block:
        return half * block
    each, rest = np.divmod(sizes, clusters)
    return half * each + np.where(half, rest // 2, 0)


def _keys(seed: int, place: Ints, n_init: int) -> NDArray[np.uint64]:
    """[R, N, 2] random words of each node and restart."""
    return hash64(seed, place[:, None], np.arange(n_init)[:, None, None], np.arange(2))


def _starts(keys: NDArray[np.uint64], sizes: Ints) -> Ints:
    """[R, N, 2] positions of two different rows of each node, uniformly drawn."""
    count = sizes.astype(np.uint64)
    first = keys[..., 0] % count
    second = (first + 1 + keys[..., 1] % (count - 1)) % count
    return np.stack([first, second], axis=-1).astype(np.int64) + (np.cumsum(sizes) - sizes)[:, None]


def _interleave(first: Ints, second: Ints, both: NDArray[np.bool_]) -> Ints:
    """first[0], second[0], first[1], ...; `second` only where there are both."""
    return np.stack([first, second], axis=1)[np.stack([np.ones_like(both), both], axis=1)]
