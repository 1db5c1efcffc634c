"""The tree of a probabilistic label tree, and how often its nodes are true in training.

L labels, V nodes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.dataset import Split
from dexml.distributed import World
from dexml.heads.base import OpenTokens
from dexml.heads.structure import cached, facts_of, label_features
from dexml.heads.tree import LabelTree
from dexml.heads.treebuild import balanced_tree, huffman_tree, kmeans_tree
from dexml.heads.treenodes import training_nodes

N_INIT = 3  # starts of each k-means
POINTS = 4096  # whose nodes are counted at a time


def tree_of(cfg: Config, split: Split, tokens: OpenTokens, world: World) -> LabelTree:
    """The tree that `plt_tree` names, the same on every rank.

    Raises:
        ConfigError, TreeError: the file it names holds no tree, or one of other labels.
    """
    if cfg.plt_tree.endswith(".safetensors"):
        return _given(Path(cfg.plt_tree), split.relevance.shape[1])
    settings = {"tree": cfg.plt_tree, "arity": cfg.plt_arity, "max_leaves": cfg.plt_max_leaves, "seed": cfg.seed}
    facts = facts_of(split, tokens, **settings)
    return cached(world, cfg.data_dir, "plt", facts, lambda: _built(cfg, split, tokens), LabelTree.load)


def _given(path: Path, n_labels: int) -> LabelTree:
    tree = LabelTree.load(path)
    if tree.n_labels != n_labels:
        raise ConfigError(f"plt_tree: {path} is a tree of {tree.n_labels} labels, the data have {n_labels}")
    return tree


def _built(cfg: Config, split: Split, tokens: OpenTokens) -> LabelTree:
    n_labels, arity, max_leaves = split.relevance.shape[1], cfg.plt_arity, cfg.plt_max_leaves
    if cfg.plt_tree == "huffman":
        return huffman_tree(np.bincount(split.relevance.indices, minlength=n_labels), arity)
    if cfg.plt_tree == "random":
        return balanced_tree(n_labels, arity, max_leaves, cfg.seed)
    return kmeans_tree(label_features("pifa", split, tokens), arity, max_leaves, cfg.seed, N_INIT)


def odds(seen: Tensor, true: Tensor) -> Tensor:
    """The log odds of so many true ones among those seen, smoothed by one half."""
    return ((true + 0.5) / (seen - true + 0.5)).log()


def log_odds(tree: LabelTree, split: Split, world: World) -> Tensor:
    """[V] of a node being true where its parent is, over the training points that have labels."""
    return odds(*node_counts(tree, split, world))


def node_counts(tree: LabelTree, split: Split, world: World) -> Tensor:
    """[2, V] how many training points with labels train a node, and for how many it is true; float64."""
    counts = torch.zeros(2, tree.n_nodes, dtype=torch.int64)
    rows = np.flatnonzero(np.diff(split.relevance.indptr))
    mine = rows[world.span(len(rows))]
    for first in range(0, len(mine), POINTS):
        cells = split.relevance[mine[first : first + POINTS]]
        _, nodes, target = training_nodes(tree, cells.indptr, cells.indices)
        for count, some in zip(counts, (nodes, nodes[target]), strict=True):
            count += torch.from_numpy(np.bincount(some, minlength=tree.n_nodes))
    return world.sum_(counts.to(world.device)).double()
