"""Label trees from clusters, features, priors, a fixed shape or a list of nodes; the same input gives the same tree.

L labels.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexml.config import ConfigError
from dexml.heads.clustering import bisect
from dexml.heads.kmeans import kmeans
from dexml.heads.pairs import Dense, Sparse, checked
from dexml.heads.tree import LabelTree
from dexml.heads.treearrays import Ints, TreeError, refuse_any


def clustered_tree(features: Dense | Sparse, cluster_size: int, seed: int = 0, n_init: int = 1) -> LabelTree:
    """Root, clusters, labels: the tree of LightXML (`max_leaf`) and of two-level AttentionXML (`cluster_size`).

    min(2^h, L) clusters with the smallest h for which none has more than `cluster_size` labels.
    """
    if cluster_size < 1:
        raise ConfigError(f"cluster_size is {cluster_size}: 1 label is the least")
    levels = bisect(features, n_clusters(features.shape[0], cluster_size), seed, n_init)
    return from_levels(levels[-1:], _meta("clustered", cluster_size=cluster_size, seed=seed, n_init=n_init))


def n_clusters(n_labels: int, cluster_size: int) -> int:
    """Of `clustered_tree`."""
    h = max(0, (-(-n_labels // cluster_size) - 1).bit_length())
    return min(2**h, n_labels)


def staged_tree(features: Dense | Sparse, levels: Sequence[int], seed: int = 0, n_init: int = 1) -> LabelTree:
    """Root, 2^d clusters for every d of `levels`, labels: the deep tree of AttentionXML; ConfigError if L < 2^d."""
    depths, n_labels = list(levels), features.shape[0]
    if not depths or sorted(set(depths)) != depths or depths[0] < 0:
        raise ConfigError(f"levels are {depths}: ascending depths of a binary tree are needed, as [11, 14, 17]")
    if n_labels < 2 ** depths[-1]:
        raise ConfigError(
            f"level {depths[-1]} has {2 ** depths[-1]} clusters but there are {n_labels} labels: "
            f"the deepest level can be {n_labels.bit_length() - 1}"
        )
    nodes = bisect(features, 2 ** depths[-1], seed, n_init)
    return from_levels([nodes[d] for d in depths], _meta("staged", levels=depths, seed=seed, n_init=n_init))


def kmeans_tree(
    features: Dense | Sparse, arity: int, max_leaves: int, seed: int = 0, n_init: int = 1, balanced: bool = True
) -> LabelTree:
    """Nodes of more than `max_leaves` labels are split into `arity` parts by spherical k-means, others hold labels."""
    _check_shape(arity, max_leaves)
    features = checked(features)

    def parts(labels: Ints, node: int) -> list[Ints]:
        part = kmeans(features[labels], arity, seed, n_init, balanced, place=node)
        return [labels[part == i] for i in range(part.max() + 1)]

    meta = _meta("kmeans", arity=arity, max_leaves=max_leaves, seed=seed, n_init=n_init, balanced=balanced)
    return _grow(np.arange(features.shape[0]), max_leaves, parts, meta)


def balanced_tree(n_labels: int, arity: int, max_leaves: int, seed: int | None = None) -> LabelTree:
    """The list of labels, shuffled if there is a seed, cut into `arity` parts until `max_leaves` or fewer are left.

    The first n mod arity parts hold one label more.
    """
    _check_shape(arity, max_leaves)
    meta = _meta("balanced", arity=arity, max_leaves=max_leaves, seed=seed)
    return _grow(_order(n_labels, seed), max_leaves, lambda labels, _: np.array_split(labels, arity), meta)


def complete_tree(n_labels: int, arity: int, seed: int | None = None) -> LabelTree:
    """Every inner node has `arity` children, the last perhaps fewer; labels in order, shuffled if there is a seed."""
    _check_shape(arity, 1)
    n_nodes = max(2, -(-(arity * n_labels - 1) // (arity - 1)))
    parent = (np.arange(n_nodes) - 1) // arity
    label_of = np.full(n_nodes, -1)
    label_of[n_nodes - n_labels :] = _order(n_labels, seed)
    return LabelTree(parent, label_of, n_labels, _meta("complete", arity=arity, seed=seed))


def huffman_tree(priors: NDArray[np.floating] | Ints, arity: int) -> LabelTree:
    """The tree of least mean depth of a label drawn by priors [L], or counts; of equal ones the older merge first."""
    _check_shape(arity, 1)
    n_labels = len(priors)
    if n_labels < 1 or not np.isfinite(priors).all() or np.min(priors) < 0:
        raise TreeError("priors of one label or more must be finite and not negative: count training points")
    heap = [(prior, label) for label, prior in enumerate(np.asarray(priors).tolist())]
    heapq.heapify(heap)
    parent = [-1] * n_labels
    take = 2 + (n_labels - 2) % (arity - 1) if n_labels > 1 else 1  # so that the root is full
    while len(parent) == n_labels or len(heap) > 1:
        merged = [heapq.heappop(heap) for _ in range(take)]
        for _, node in merged:
            parent[node] = len(parent)
        heapq.heappush(heap, (sum(prior for prior, _ in merged), len(parent)))
        parent.append(-1)
        take = arity
    label_of = np.full(len(parent), -1)
    label_of[:n_labels] = np.arange(n_labels)
    return LabelTree.of(np.array(parent), label_of, n_labels, _meta("huffman", arity=arity))


def from_levels(levels: Sequence[Ints], meta: Mapping[str, Any] | None = None) -> LabelTree:
    """The staged tree of given clusters: of each depth 1, 2, ... the cluster of every label [L], -1 for none.

    A cluster of one depth must lie in one cluster of the depth above. Labels that are -1 anywhere have no leaf.
    """
    n_labels = len(levels[0])
    if {np.shape(level) for level in levels} != {(n_labels,)}:
        raise TreeError(
            f"clusters of shapes {[np.shape(level) for level in levels]}: one for every label at each depth"
        )
    has = np.flatnonzero(np.all([np.asarray(level) >= 0 for level in levels], axis=0))
    refuse_any(np.zeros(int(not len(has)), int), "label", "and all others are without a cluster")
    node, parents = np.zeros(len(has), np.int64), [np.array([-1])]
    first = 0  # of the depth above
    for level in [*levels, np.arange(n_labels)]:
        names, own = np.unique(np.asarray(level)[has], return_inverse=True)
        cells, node = np.unique(node * len(names) + own, return_inverse=True)
        times = np.bincount(cells % len(names))
        refuse_any(names[times > 1], "cluster", "lie in several clusters of the depth above")
        parents.append(first + cells // len(names))
        first += len(parents[-2])
    parent = np.concatenate(parents)
    label_of = np.full(len(parent), -1)
    label_of[first + node] = has
    partial = {"partial": True} if len(has) < n_labels else {}
    return LabelTree(parent, label_of, n_labels, {**_meta("given"), **(meta or {}), **partial})


def from_triples(triples: Ints, n_labels: int) -> LabelTree:
    """The tree of rows [V, 3] (parent, node, label): any node numbers >= 0, parent -1 for the root, label -1 inside."""
    above, nodes, label_of = np.asarray(triples, np.int64).reshape(-1, 3).T
    names, place = np.unique(nodes, return_inverse=True)
    refuse_any(names[np.bincount(place, minlength=len(names)) > 1], "node", "are listed twice")
    refuse_any(nodes[(above != -1) & ~np.isin(above, names)], "node", "have a parent that is not listed")
    order = np.argsort(nodes)
    parent = np.where(above >= 0, np.searchsorted(names, above), -1)[order]
    return LabelTree.of(parent, label_of[order], n_labels, _meta("given"))


def _grow(labels: Ints, max_leaves: int, parts: Callable[[Ints, int], list[Ints]], meta: dict[str, Any]) -> LabelTree:
    """Splits sets of labels by `parts(labels, node)`, breadth first; a part of one label is a leaf at once."""
    parent, label_of, waiting = [-1], [-1], [(0, labels)]
    for node, own in waiting:
        below = parts(own, node) if len(own) > max_leaves else [own[i : i + 1] for i in range(len(own))]
        for part in below:
            if len(part):
                if len(part) > 1:
                    waiting.append((len(parent), part))
                parent.append(node)
                label_of.append(-1 if len(part) > 1 else int(part[0]))
    return LabelTree.of(np.array(parent), np.array(label_of), len(labels), meta)


def _order(n_labels: int, seed: int | None) -> Ints:
    if n_labels < 1:
        raise TreeError(f"{n_labels} labels: a tree needs one at least")
    return np.arange(n_labels) if seed is None else np.random.default_rng(seed).permutation(n_labels)


def _check_shape(arity: int, max_leaves: int) -> None:
    if arity < 2 or max_leaves < 1:
        raise ConfigError(f"arity is {arity}, max_leaves {max_leaves}: 2 and 1 are the least")


def _meta(builder: str, **settings: Any) -> dict[str, Any]:
    return {"builder": builder, **settings}
