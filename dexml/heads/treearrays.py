"""What must hold for the two arrays of a label tree, and how any numbering of its nodes becomes breadth first."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

SHOWN = 3
Ints = NDArray[np.integer]


class TreeError(ValueError):
    """A label tree that cannot be, or that is not the one wanted; the message says what is wrong and the mend."""


def check_tree(parent: Ints, label_of: Ints, n_labels: int, partial: bool) -> None:
    """TreeError naming the first nodes or labels that are wrong in arrays [V]."""
    if parent.ndim != 1 or parent.shape != label_of.shape or len(parent) < 2 or n_labels < 1:
        _refuse(f"parent {parent.shape} and label_of {label_of.shape} for {n_labels} labels: give a root and a leaf")
    if parent[0] != -1:
        _refuse(f"node 0 has parent {parent[0]}: it is the root, with parent -1")
    nodes = np.arange(1, len(parent))
    refuse_any(nodes[(parent[1:] < 0) | (parent[1:] >= nodes)], "node", "have no parent before them")
    refuse_any(nodes[1:][np.diff(parent[1:]) < 0], "node", "are not numbered breadth first")
    inner = np.bincount(parent[1:], minlength=len(parent)) > 0
    refuse_any(np.flatnonzero(~inner & (label_of < 0)), "node", "have neither children nor a label")
    refuse_any(np.flatnonzero(inner & (label_of != -1)), "node", "have children and a label")
    check_labels(label_of[label_of >= 0], n_labels, partial)


def check_labels(labels: Ints, n_labels: int, partial: bool) -> None:
    """TreeError unless these are different labels below `n_labels`, and all of them unless partial."""
    refuse_any(labels[labels >= n_labels], "label", f"are out of range: there are {n_labels}")
    counts = np.bincount(labels, minlength=n_labels)
    refuse_any(np.flatnonzero(counts > 1), "label", "have several leaves")
    if not partial:
        refuse_any(np.flatnonzero(counts == 0), "label", "have no leaf")


def refuse_any(wrong: Ints, what: str, fault: str) -> None:
    """TreeError naming the first of `wrong`, if there are any."""
    if len(wrong):
        more = ", ..." if len(wrong) > SHOWN else ""
        _refuse(f"{what}s {', '.join(map(str, wrong[:SHOWN].tolist()))}{more} {fault}")


def breadth_first(parent: Ints) -> NDArray[np.int64]:
    """Nodes [V] in breadth-first order, siblings in the order of their old numbers; parent [V] is -1 for the root.

    TreeError unless there is one root from which every node is reached.
    """
    roots = np.flatnonzero(parent == -1)
    if len(roots) != 1:
        _refuse(f"{len(roots)} nodes have parent -1: the root alone has")
    refuse_any(np.flatnonzero((parent < -1) | (parent >= len(parent))), "node", "have a parent that is no node")
    counts = np.bincount(parent[parent >= 0], minlength=len(parent))
    by_parent = np.argsort(parent, kind="stable")
    first = 1 + np.cumsum(counts) - counts  # in by_parent, after the root
    levels = [roots]
    while len(levels[-1]):
        above = levels[-1]
        offsets = np.cumsum(counts[above]) - counts[above]
        places = np.arange(counts[above].sum()) + np.repeat(first[above] - offsets, counts[above])
        levels.append(by_parent[places])
    order = np.concatenate(levels)
    refuse_any(np.setdiff1d(np.arange(len(parent)), order), "node", "are in a cycle, or below one")
    return order


def _refuse(fault: str) -> NoReturn:
    raise TreeError(f"not a label tree: {fault}; build it again")
