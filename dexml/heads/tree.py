"""The tree of labels that every tree head shares.

A tree is two arrays, `parent` [V] and `label_of` [V]; all else is derived. Nodes are numbered breadth first, so
siblings are consecutive, every depth is a range of nodes, and the labels under any node are a range of `leaf_order`.

V nodes, L labels, H the largest depth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexml.heads.treearrays import Ints, TreeError, breadth_first, check_tree

__all__ = ["Clusters", "LabelTree", "TreeError"]

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Clusters:
    """The nodes just above the labels, numbered from 0: K clusters of at most C labels."""

    cluster_of: Int32
    """[L] cluster of a label, -1 without one"""
    slot_of: Int32
    """[L] place of a label inside its cluster, -1 without one"""
    members: Int32
    """[K, C] labels of a cluster, then -1"""
    size: Int32
    """[K]"""


@dataclass(frozen=True, eq=False)
class LabelTree:
    """Checked when it is made: TreeError unless every label has exactly one leaf and nodes are numbered breadth first.

    Trees are equal if their nodes and labels are, whatever `meta` says.
    """

    parent: Ints
    """[V], -1 for node 0, the root; ascending"""
    label_of: Ints
    """[V] label of a leaf, -1 for an inner node"""
    n_labels: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    """How the tree came about, as JSON can hold it; `partial: true` lets labels be without a leaf."""

    def __post_init__(self) -> None:
        for name in ("parent", "label_of"):
            array = np.ascontiguousarray(getattr(self, name), np.int32)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        check_tree(self.parent, self.label_of, self.n_labels, bool(self.meta.get("partial")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelTree) and (self.n_labels, self.hash) == (other.n_labels, other.hash)

    def __hash__(self) -> int:
        return hash((self.n_labels, self.hash))

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256 over `parent`, then `label_of`, as little-endian int32: same tree, same hash."""
        return hashlib.sha256(self.parent.astype("<i4").tobytes() + self.label_of.astype("<i4").tobytes()).hexdigest()

    @property
    def n_nodes(self) -> int:
        return len(self.parent)

    @cached_property
    def n_leaves(self) -> int:
        """L, or fewer in a partial tree."""
        return int((self.label_of >= 0).sum())

    @property
    def height(self) -> int:
        """H, edges from the root to the deepest leaf."""
        return len(self.levels) - 1

    @cached_property
    def n_child(self) -> Int32:
        """[V], 0 for a leaf."""
        return np.bincount(self.parent[1:], minlength=self.n_nodes).astype(np.int32)

    @cached_property
    def child_indptr(self) -> NDArray[np.int64]:
        """[V + 1]: the children of v are nodes child_indptr[v] + 1 .. child_indptr[v + 1], all children are 1..V-1."""
        return np.concatenate([[0], np.cumsum(self.n_child, dtype=np.int64)])

    @cached_property
    def first_child(self) -> Int32:
        """[V], -1 for a leaf."""
        return np.where(self.n_child, self.child_indptr[:-1] + 1, -1).astype(np.int32)

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """Of each depth 0..H: its nodes are range(low, high)."""
        levels = [(0, 1)]
        while (end := int(self.child_indptr[levels[-1][1]]) + 1) > levels[-1][1]:
            levels.append((levels[-1][1], end))
        return levels

    @cached_property
    def depth(self) -> Int32:
        """[V], 0 for the root."""
        return np.repeat(np.arange(len(self.levels), dtype=np.int32), [high - low for low, high in self.levels])

    @cached_property
    def leaf_of(self) -> Int32:
        """[L] node of a label, -1 without a leaf."""
        leaf_of = np.full(self.n_labels, -1, np.int32)
        leaves = np.flatnonzero(self.label_of >= 0)
        leaf_of[self.label_of[leaves]] = leaves
        return leaf_of

    @cached_property
    def n_under(self) -> Int32:
        """[V] labels under a node, itself included."""
        under = (self.label_of >= 0).astype(np.int32)
        for low, high in self.levels[:0:-1]:
            np.add.at(under, self.parent[low:high], under[low:high])
        return under

    @cached_property
    def leaf_lo(self) -> Int32:
        """[V]: the labels under v are leaf_order[leaf_lo[v] : leaf_hi[v]]."""
        before = np.cumsum(self.n_under, dtype=np.int64) - self.n_under
        lows = np.zeros(self.n_nodes, np.int64)
        for low, high in self.levels[1:]:
            above = self.parent[low:high]
            lows[low:high] = lows[above] + before[low:high] - before[self.first_child[above]]
        return lows.astype(np.int32)

    @cached_property
    def leaf_hi(self) -> Int32:
        return self.leaf_lo + self.n_under

    @cached_property
    def leaf_order(self) -> Int32:
        """[L], or fewer in a partial tree: the labels depth first."""
        leaves = np.flatnonzero(self.label_of >= 0)
        return self.label_of[leaves[np.argsort(self.leaf_lo[leaves])]].astype(np.int32)

    def children(self, nodes: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Children of these nodes [n], one after the other: indptr [n + 1] and nodes."""
        counts = self.n_child[nodes].astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        return indptr, np.arange(indptr[-1]) + np.repeat(self.first_child[nodes] - indptr[:-1], counts)

    def ancestor_at(self, depth: int) -> Int32:
        """[L] the node of this depth above a label, or its leaf; -1 if the leaf is higher, or there is none."""
        return self.paths()[:, depth] if 0 <= depth <= self.height else np.full(self.n_labels, -1, np.int32)

    def paths(self, labels: Ints | None = None) -> Int32:
        """[n, H + 1] nodes from the root to the leaf of these labels (all L by default), then -1."""
        node = self.leaf_of if labels is None else self.leaf_of[labels]
        paths = np.full((len(node), self.height + 1), -1, np.int32)
        rows = np.flatnonzero(node >= 0)
        while len(rows):
            paths[rows, self.depth[node[rows]]] = node[rows]
            node = np.where(node > 0, self.parent[node], -1)
            rows = np.flatnonzero(node >= 0)
        return paths

    def max_width(self, depth: int) -> int:
        """The largest number of children of a node of this depth."""
        return int(self.n_child[slice(*self.levels[depth])].max())

    @cached_property
    def staged(self) -> bool:
        """Whether all labels are at one depth, as heads that go level by level need it."""
        low, high = self.levels[-1]
        return high - low == self.n_leaves

    @cached_property
    def clusters(self) -> Clusters:
        """The nodes above the labels; TreeError unless the tree is staged."""
        if not self.staged:
            raise TreeError("labels are at several depths: clusters exist in staged trees only")
        low, high = self.levels[-2]
        has = self.leaf_of >= 0
        above = self.parent[self.leaf_of]
        cluster_of = np.where(has, above - low, -1).astype(np.int32)
        slot_of = np.where(has, self.leaf_of - self.first_child[above], -1).astype(np.int32)
        members = np.full((high - low, self.max_width(self.height - 1)), -1, np.int32)
        members[cluster_of[has], slot_of[has]] = np.flatnonzero(has)
        return Clusters(cluster_of, slot_of, members, self.n_child[low:high])

    def shard_bounds(self, n_shards: int) -> NDArray[np.int64]:
        """[n_shards + 1] bounds of about equal ranges of `leaf_order`, none of which cuts a cluster."""
        ends = np.append(0, np.cumsum(self.clusters.size))
        wanted = np.arange(n_shards + 1) * self.n_leaves // n_shards
        return ends[np.searchsorted(ends, wanted)]

    def collapse(self, depths: Sequence[int]) -> LabelTree:
        """The tree of the root, the nodes of these depths and the leaves; parents are the nearest ancestors kept."""
        keep = np.isin(self.depth, depths) | (self.label_of >= 0)
        keep[0] = True
        above = self.parent.copy()
        while (lost := (above >= 0) & ~keep[above]).any():
            above[lost] = self.parent[above[lost]]
        kept = np.flatnonzero(keep)
        kept = kept[np.argsort(self.leaf_lo[kept], kind="stable")]
        place = np.zeros(self.n_nodes, np.int64)
        place[kept] = np.arange(len(kept))
        parent = np.where(above[kept] >= 0, place[above[kept]], -1)
        return LabelTree.of(parent, self.label_of[kept], self.n_labels, self.meta)

    def with_meta(self, **facts: Any) -> LabelTree:
        """The same tree with more said of it, as `data`, the fingerprint of what it was built for."""
        return replace(self, meta={**self.meta, **facts})

    @classmethod
    def of(cls, parent: Ints, label_of: Ints, n_labels: int, meta: Mapping[str, Any] | None = None) -> LabelTree:
        """The tree of nodes in any order: the parent of each [V], -1 for the root, and its label [V], -1 inside."""
        order = breadth_first(parent)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        above = parent[order]
        return cls(np.where(above >= 0, place[above], -1), label_of[order], n_labels, meta or {})

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, in one step."""
        from dexml.heads.treefile import write_tree

        write_tree(Path(path), self)

    @classmethod
    def load(cls, path: str | Path, data: str | None = None) -> LabelTree:
        """Read what `save` wrote; TreeError for a broken or foreign file, or one whose `meta["data"]` is not `data`."""
        from dexml.heads.treefile import read_tree

        return read_tree(Path(path), data)
