"""The levels of AttentionXML: the tree they are cut from, and a data set whose labels are the nodes of one level.

L labels, n nodes of a level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.config import Config
from dexml.data.batching import Ints
from dexml.data.dataset import Dataset, Split
from dexml.data.relevance import remove_cells
from dexml.distributed import World
from dexml.heads.base import OpenTokens
from dexml.heads.structure import cached, facts_of, label_features
from dexml.heads.tree import LabelTree
from dexml.heads.treebuild import clustered_tree, staged_tree

RESTARTS = 3  # of every 2-means; the best counts


def tree_of(cfg: Config, split: Split, tokens: OpenTokens, world: World) -> LabelTree:
    """The tree that a config asks for, learnt from the training points; kept beside the data.

    Raises:
        ConfigError: a level with more clusters than there are labels.
    """
    depths = depths_of(cfg)
    shape = {"levels": depths} if depths else {"cluster_size": cfg.cluster_size}
    facts = facts_of(split, tokens, head="attentionxml", seed=cfg.seed, restarts=RESTARTS, **shape)

    def build() -> LabelTree:
        features = label_features("pifa", split, tokens)
        if depths:
            return staged_tree(features, depths, cfg.seed, RESTARTS)
        return clustered_tree(features, cfg.cluster_size, cfg.seed, RESTARTS)

    return cached(world, Path(cfg.data_dir), "attentionxml", facts, build, LabelTree.load)


def depths_of(cfg: Config) -> list[int]:
    """`tree_levels` as numbers."""
    return [int(depth) for depth in cfg.tree_levels.split(",") if depth]


def n_levels(cfg: Config) -> int:
    """Networks of the whole model, that of the labels included."""
    return 1 + (len(depths_of(cfg)) or 1)


def level_of(cfg: Config) -> int:
    """The level that a run trains."""
    return n_levels(cfg) - 1 if cfg.train_level is None else cfg.train_level


def nodes_of(tree: LabelTree, level: int) -> NDArray[np.int64]:
    """[L] the node of a level, from 0, that a label is under."""
    return tree.ancestor_at(level + 1).astype(np.int64) - tree.levels[level + 1][0]


def parents_at(tree: LabelTree, level: int) -> Ints:
    """[n] the parent of each node of a level, both numbered from 0 in their level."""
    low, high = tree.levels[level + 1]
    return tree.parent[low:high].astype(np.int64) - tree.levels[level][0]


def run_of_level(cfg: Config, level: int) -> Path:
    """The folder of the run that trains a level above the last."""
    whole = cfg.out_dir if cfg.train_level is None else cfg.out_dir.parent
    return whole / f"level-{level}"


@dataclass(frozen=True)
class LevelSplit(Split):
    """Points whose labels are the nodes of a level."""

    tree: LabelTree


def level_dataset(dataset: Dataset, tree: LabelTree, level: int) -> Dataset:
    """The same points with the nodes of a level above the labels in the place of labels.

    A node is true if a label under it is, and filtered if one is and none is true.
    """
    low, high = tree.levels[level + 1]
    cells = np.ones(tree.n_labels, np.float32), (np.arange(tree.n_labels), nodes_of(tree, level))
    node_of = csr_matrix(cells, shape=(tree.n_labels, high - low))

    def seen(split: Split) -> Split:
        relevance = csr_matrix(split.relevance.astype(bool).astype(np.float32) @ node_of)
        relevance.data[:] = 1
        filters = None if split.filters is None else remove_cells(csr_matrix(split.filters @ node_of), relevance)
        return LevelSplit(split.name, split.texts, relevance, filters, tree)

    names = [f"cluster {i}" for i in range(high - low)]
    splits = {name: seen(split) for name, split in dataset.splits.items()}
    return replace(dataset, label_texts=names, splits=splits)  # type: ignore[arg-type]
