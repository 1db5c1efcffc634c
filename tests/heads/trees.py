"""Naive references for trees and clusters, and small trees."""

from __future__ import annotations

import numpy as np

from dexml.heads.tree import LabelTree

T = LabelTree(np.array([-1, 0, 0, 1, 1, 2, 2]), np.array([-1, -1, -1, 0, 1, 2, 3]), 4)


def random_tree(rng: np.random.Generator, n_inner: int) -> LabelTree:
    """Inner nodes hang below random earlier ones; every node without children is a leaf."""
    parent = np.array([-1, *(int(rng.integers(0, v)) for v in range(1, n_inner + 1))])
    leaves = np.setdiff1d(np.arange(n_inner + 1), parent)
    label_of = np.full(n_inner + 1, -1)
    label_of[leaves] = rng.permutation(len(leaves))
    return LabelTree.of(parent, label_of, len(leaves))


def naive_labels_under(tree: LabelTree, node: int) -> list[int]:
    """Labels under a node, depth first."""
    if tree.label_of[node] >= 0:
        return [int(tree.label_of[node])]
    children = [v for v in range(tree.n_nodes) if tree.parent[v] == node]
    return [label for child in children for label in naive_labels_under(tree, child)]


def naive_path(tree: LabelTree, label: int) -> list[int]:
    """Nodes from the root to the leaf of a label."""
    node = next(v for v in range(tree.n_nodes) if tree.label_of[v] == label)
    path = [node]
    while tree.parent[path[0]] >= 0:
        path.insert(0, int(tree.parent[path[0]]))
    return path


def naive_two_means(z: np.ndarray, n_left: int, first: int, second: int) -> tuple[list[int], float]:
    """Balanced 2-means of one node, word for word: the side of every row and the mean similarity."""
    c0, c1 = z[first], z[second]
    old, new = -2.0, -1.0
    while new - old >= 1e-4:
        s, t = z @ c0, z @ c1
        order = sorted(range(len(z)), key=lambda i: (t[i] - s[i], i))
        left, right = order[:n_left], order[n_left:]
        old, new = new, (s[left].sum() + t[right].sum()) / len(z)
        c0, c1 = (part / (np.linalg.norm(part) or 1) for part in (z[left].sum(0), z[right].sum(0)))
    return [int(i in set(right)) for i in range(len(z))], float(new)


def naive_assign(near: np.ndarray) -> list[int]:
    """Balanced parts, label by label."""
    n, k = near.shape
    room, extra = divmod(n, k)
    part, held = [-1] * n, [0] * k
    for label in sorted(range(n), key=lambda i: (-near[i].max(), i)):
        free = [p for p in range(k) if held[p] < room or (held[p] == room and extra)]
        chosen = max(free, key=lambda p: (near[label, p], -p))
        extra -= held[chosen] == room
        held[chosen] += 1
        part[label] = chosen
    return part
