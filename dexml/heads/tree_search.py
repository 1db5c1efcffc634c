"""Exact search, beam search and queries in a probabilistic label tree (arXiv 2009.11218), for a block of texts at once.

The marginal of a node is the product of the conditionals on its path, kept as a logarithm so that deep trees do not
underflow. All searches go down level by level, with the nodes of all texts in one ragged list; they differ in which
inner nodes go on: a beam the best few of each text, an exact search those that can still hold a wanted label. The
exact one has its bound from a beam, so it visits what uniform-cost search would (plus, where that beam missed a label
of the first k, a little more), and needs no queue.

The value of a label is its marginal, times its weight if there are weights (arXiv 2110.10803): under a node none has
more than the node's marginal times the largest weight there. Order: higher value first, then the smaller label id;
in a beam the smaller node.

N texts, V nodes, L labels, n nodes of the list, K places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.heads.tree import LabelTree

Conditionals = Callable[[Tensor, Tensor], Tensor]
"""log P(node | its parent) [P] of the pairs (text, node) of a CSR: `indptr` [N + 1] and `nodes` [P]"""


@dataclass(frozen=True)
class Found:
    """Labels of N texts; those of text i are `indptr[i]:indptr[i + 1]`, best first."""

    indptr: Tensor
    labels: Tensor
    log_marginals: Tensor
    """float64"""
    log_values: Tensor
    """the same, plus the log of the label's weight"""
    evaluations: Tensor
    """[N] nodes whose conditional was asked for"""
    omitted_max: Tensor
    """[N] no label that is left out has a marginal above this; 0 if none is"""
    omitted_mass: Tensor
    """[N] nor have all of them together a sum of marginals above this"""

    def lists(self, k: int) -> tuple[Tensor, Tensor]:
        """The first k labels [N, k] and their log values, padded with -1 and -inf."""
        counts = self.indptr.diff()
        text = torch.repeat_interleave(counts)
        place = torch.arange(len(text), device=text.device) - self.indptr[text]
        kept = place < k
        ids = self.labels.new_full((len(counts), k), -1)
        values = self.log_values.new_full((len(counts), k), -torch.inf)
        ids[text[kept], place[kept]] = self.labels[kept]
        values[text[kept], place[kept]] = self.log_values[kept]
        return ids, values


@dataclass
class _Nodes:
    """A ragged list: nodes of texts, by ascending text."""

    text: Tensor
    node: Tensor
    log_marginal: Tensor

    def take(self, which: Tensor) -> _Nodes:
        return _Nodes(self.text[which], self.node[which], self.log_marginal[which])


class TreeSearch:
    """Searches of one tree.

    Args:
        weights: [L] above 0; values are marginals times these.
        thresholds: [L], or one for all labels: labels with a smaller marginal are left out.
    """

    def __init__(
        self,
        tree: LabelTree,
        weights: NDArray[np.floating] | None = None,
        thresholds: NDArray[np.floating] | float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        def on_device(array: NDArray[np.number]) -> Tensor:
            return torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64)).to(device)

        self.tree, self.device = tree, device
        names = ("first_child", "n_child", "label_of", "n_under")
        self._of = {name: on_device(getattr(tree, name)) for name in names}
        with np.errstate(divide="ignore"):
            weight = np.log(np.ones(tree.n_labels) if weights is None else np.asarray(weights, np.float64))
            least = np.log(np.broadcast_to(np.asarray(thresholds, np.float64), (tree.n_labels,)))
        self._log_weight = on_device(_over_leaves(tree, weight, np.maximum))
        self._log_least = on_device(_over_leaves(tree, least, np.minimum))

    def beam(self, conditionals: Conditionals, n_texts: int, k: int, width: int) -> Found:
        """The best k of the labels reached from the `width` best inner nodes of each depth; 0 keeps all labels reached.

        Exact if every depth has at most `width` inner nodes. Labels take no place in the beam.
        """

        def best(nodes: _Nodes) -> Tensor:
            order = _ordered(nodes.text, self._keys(nodes))
            kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
            kept[order] = _rank(nodes.text[order], n_texts) < width
            return kept

        return self._descend(conditionals, n_texts, k, best)

    def exact(self, conditionals: Conditionals, n_texts: int, k: int = 0) -> Found:
        """The k best of all labels; with 0, all labels that reach their threshold."""
        bound = torch.full((n_texts,), -torch.inf, dtype=torch.float64, device=self.device)
        if k:  # a beam of k nodes ends at k labels or more, if there are so many
            first = self.beam(conditionals, n_texts, k, k)
            full = first.indptr.diff() >= k
            bound[full] = first.log_values[first.indptr[1:][full] - 1]
        return self._descend(conditionals, n_texts, k, lambda nodes: self._keys(nodes) >= bound[nodes.text])

    def log_marginals(self, conditionals: Conditionals, labels_NK: Tensor) -> Tensor:
        """[N, K] of these labels, -inf for -1 and for a label without a leaf; nodes shared by paths are asked once."""
        n, k = labels_NK.shape
        given = labels_NK.cpu().numpy()
        paths = self.tree.paths(given.clip(0).ravel())
        paths = paths.reshape(n, k, paths.shape[1])
        known = (given >= 0) & (paths[:, :, 0] >= 0)
        wanted = torch.from_numpy(np.where(known[:, :, None], paths, -1).astype(np.int64)).to(self.device)
        V = self.tree.n_nodes
        keys = torch.arange(n, device=self.device)[:, None, None] * V + wanted
        asked, place = torch.unique(keys[wanted >= 0], return_inverse=True)
        text = asked // V
        value = conditionals(_indptr(text, n), asked % V)
        logs = torch.zeros(wanted.shape, dtype=torch.float64, device=self.device)
        logs[wanted >= 0] = value.double()[place]
        return logs.sum(2).masked_fill(~torch.from_numpy(known).to(self.device), -torch.inf)

    def _keys(self, nodes: _Nodes) -> Tensor:
        """[n] the largest log value that a label under each node can have."""
        return nodes.log_marginal + self._log_weight[nodes.node]

    def _descend(self, conditionals: Conditionals, n_texts: int, k: int, goes_on: Callable[[_Nodes], Tensor]) -> Found:
        texts = torch.arange(n_texts, device=self.device)
        roots = torch.zeros_like(texts)
        nodes = _Nodes(texts, roots, conditionals(_indptr(texts, n_texts), roots).double())
        omitted, evaluations = _Omitted(nodes.log_marginal.new_zeros(n_texts), self._of["n_under"]), roots + 1
        leaves = []
        while len(nodes.node):
            reaches = nodes.log_marginal >= self._log_least[nodes.node]
            inner = self._of["n_child"][nodes.node] > 0
            leaves.append(nodes.take(reaches & ~inner))
            omitted.add(nodes.take(~reaches))
            nodes = nodes.take(reaches & inner)
            kept = goes_on(nodes)
            omitted.add(nodes.take(~kept))
            nodes = self._children(nodes.take(kept), conditionals, n_texts)
            evaluations += torch.bincount(nodes.text, minlength=n_texts)
        return self._best_leaves(leaves, n_texts, k, evaluations, omitted)

    def _children(self, above: _Nodes, conditionals: Conditionals, n_texts: int) -> _Nodes:
        counts = self._of["n_child"][above.node]
        place = torch.repeat_interleave(counts)
        offset = torch.arange(len(place), device=place.device) - (counts.cumsum(0) - counts)[place]
        text, node = above.text[place], self._of["first_child"][above.node][place] + offset
        return _Nodes(text, node, above.log_marginal[place] + conditionals(_indptr(text, n_texts), node))

    def _best_leaves(self, leaves: list[_Nodes], n_texts: int, k: int, evaluations: Tensor, omitted: _Omitted) -> Found:
        parts = ([part.text, part.node, part.log_marginal] for part in leaves)
        every = _Nodes(*(torch.cat(column) for column in zip(*parts, strict=True)))
        every = every.take(torch.argsort(self._of["label_of"][every.node]))
        every = every.take(_ordered(every.text, self._keys(every)))
        if k:
            kept = _rank(every.text, n_texts) < k
            omitted.add(every.take(~kept))
            every = every.take(kept)
        labels, values, indptr = self._of["label_of"][every.node], self._keys(every), _indptr(every.text, n_texts)
        return Found(indptr, labels, every.log_marginal, values, evaluations, omitted.largest, omitted.mass)


class _Omitted:
    """What is known of the labels that a search left out."""

    def __init__(self, zeros_N: Tensor, n_under: Tensor) -> None:
        self.largest, self.mass, self._n_under = zeros_N, zeros_N, n_under

    def add(self, nodes: _Nodes) -> None:
        marginal = nodes.log_marginal.exp()
        self.largest = self.largest.scatter_reduce(0, nodes.text, marginal, "amax")
        self.mass = self.mass.index_add(0, nodes.text, marginal * self._n_under[nodes.node])


def _over_leaves(tree: LabelTree, of_label: NDArray[np.float64], join: np.ufunc) -> NDArray[np.float64]:
    """[V] the largest or smallest of the labels under every node."""
    over = np.full(tree.n_nodes, -np.inf if join is np.maximum else np.inf)
    leaves = tree.label_of >= 0
    over[leaves] = of_label[tree.label_of[leaves]]
    for low, high in tree.levels[:0:-1]:
        join.at(over, tree.parent[low:high], over[low:high])
    return over


def _ordered(text: Tensor, key: Tensor) -> Tensor:
    """The order of a list by text, then descending key; of equal ones the order they have."""
    order = torch.argsort(key, descending=True, stable=True)
    return order[torch.argsort(text[order], stable=True)]


def _rank(text: Tensor, n_texts: int) -> Tensor:
    """[n] the place of each entry within its text, in a list by ascending text."""
    return torch.arange(len(text), device=text.device) - _indptr(text, n_texts)[text]


def _indptr(text: Tensor, n_texts: int) -> Tensor:
    counts = torch.bincount(text, minlength=n_texts)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
