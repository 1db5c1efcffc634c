"""Which nodes of a probabilistic label tree (arXiv 2009.11218) a document trains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dexml.heads.tree import LabelTree
from dexml.heads.treearrays import Ints, refuse_any


def training_nodes(
    tree: LabelTree, indptr: Ints, labels: Ints, unknown: tuple[Ints, Ints] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The paths to the labels of every document, and the other children of nodes on them; the root if it has none.

    Args:
        indptr: [B + 1], as of CSR.
        labels: [indptr[-1]]; TreeError for one without a leaf.
        unknown: indptr and labels that are neither true nor false: nor are nodes on the way to them alone.

    Returns:
        indptr [B + 1], nodes by ascending number, and whether each is on a path (its target).
    """
    refuse_any(labels[tree.leaf_of[labels] < 0], "label", "have no leaf")
    bounds = np.arange(len(indptr)) * tree.n_nodes  # the keys of a document: its bound + node
    first = bounds[:-1]
    on_path = _on_paths(tree, first, indptr, labels)
    document, node = np.divmod(on_path, tree.n_nodes)
    counts, below = tree.children(node)
    beside = np.repeat(first[document], np.diff(counts)) + below
    every = np.unique(np.concatenate([first, on_path, beside]))
    if unknown is not None and len(unknown[1]):
        every = np.setdiff1d(every, np.setdiff1d(_on_paths(tree, first, *unknown), on_path))
    return np.searchsorted(every, bounds), every % tree.n_nodes, np.isin(every, on_path)


def _on_paths(tree: LabelTree, first: Ints, indptr: Ints, labels: Ints) -> Ints:
    """Keys, ascending, of the nodes on the paths to labels; document i has those from `first[i]` on."""
    paths = tree.paths(labels)
    keys = np.repeat(first, np.diff(indptr))[:, None] + paths
    return np.unique(keys[paths >= 0])
