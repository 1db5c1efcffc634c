"""Which nodes of a probabilistic label tree (arXiv 2009.11218) a document trains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dexml.heads.tree import LabelTree
from dexml.heads.treearrays import Ints, refuse_any


def training_nodes(
    tree: LabelTree, indptr: Ints, labels: Ints
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The paths to the labels of every document, and the other children of nodes on them; the root if it has none.

    Args:
        indptr: [B + 1], as of CSR.
        labels: [indptr[-1]]; TreeError for one without a leaf.

    Returns:
        indptr [B + 1], nodes by ascending number, and whether each is on a path (its target).
    """
    refuse_any(labels[tree.leaf_of[labels] < 0], "label", "have no leaf")
    bounds = np.arange(len(indptr)) * tree.n_nodes  # the keys of a document: its bound + node
    first = bounds[:-1]
    paths = tree.paths(labels)
    keys = np.repeat(first, np.diff(indptr))[:, None] + paths
    on_path = np.unique(keys[paths >= 0])
    document, node = np.divmod(on_path, tree.n_nodes)
    counts, below = tree.children(node)
    beside = np.repeat(first[document], np.diff(counts)) + below
    every = np.unique(np.concatenate([first, on_path, beside]))
    return np.searchsorted(every, bounds), every % tree.n_nodes, np.isin(every, on_path)
