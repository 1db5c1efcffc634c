"""Which codes the labels of a data set get: the lengths of the heads, and the order of the labels.

L labels, G groups: the first digit of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from dexml.config import Config
from dexml.data.dataset import Split
from dexml.data.textfile import Lines
from dexml.distributed import World
from dexml.heads.base import OpenTokens
from dexml.heads.clustering import block_order
from dexml.heads.label_codes import Int64, Ints, LabelCodes, check_room
from dexml.heads.structure import cached, facts_of, label_features

CASCADE_DIM = 400  # default width of label vectors
NEAR = 0.2  # how far, as a share, automatic lengths go to find a divisor


def lengths_of(n_labels: int, groups: int) -> tuple[int, int]:
    """Two heads of about `groups` groups: all of equal size, but for the last."""
    block = ceil(n_labels / min(groups, n_labels))
    return ceil(n_labels / block), block


def automatic_lengths(n_labels: int, n_heads: int = 2, weight: float = 1.0) -> tuple[int, ...]:
    """Lengths of least cost, the first counting 1, each of the others `weight`; without pads where a divisor is near.

    A product costs the sum of its lengths. A cascade costs D for a unit of the first head and K * d for one of the
    others (K nodes, elements of width d), so its weight is K * d / D.
    """
    if n_heads == 1:
        return (n_labels,)
    first = weight ** ((n_heads - 1) / n_heads) * n_labels ** (1 / n_heads)
    nodes = near_divisor(n_labels, n_labels / (n_labels / first) ** (1 / (n_heads - 1)))
    nodes, block = lengths_of(n_labels, nodes)
    return (*automatic_lengths(nodes, n_heads - 1, weight), block)


def near_divisor(n: int, wanted: float) -> int:
    """The divisor of n nearest to `wanted`, of two the smaller, if one is within `NEAR`; else `wanted`."""
    low, high = max(1, ceil(wanted * (1 - NEAR))), min(n, int(wanted * (1 + NEAR)))
    divisors = [g for g in range(low, high + 1) if n % g == 0]
    return min(divisors, key=lambda g: abs(g - wanted), default=min(n, max(1, round(wanted))))


def alphabetical(label_texts: Sequence[str]) -> Int64:
    """[L] labels by their texts as strings (the published order), of equal ones the smaller id first."""
    return np.array(sorted(range(len(label_texts)), key=label_texts.__getitem__), np.int64)


def by_frequency(counts: Ints) -> Int64:
    """[L] labels by their training points [L], most first, of equal ones the smaller id first."""
    return np.argsort(-counts, kind="stable")


def make_codes(cfg: Config, split: Split, open_tokens: OpenTokens, width: int, world: World) -> LabelCodes:
    """The codes that a config asks for, made once for these training points and kept beside the data.

    Args:
        width: of the text vector.
    """
    n_labels = split.relevance.shape[1]
    lengths = chosen_lengths(cfg, n_labels, width)
    seed = cfg.seed if cfg.mhe_order in ("random", "cluster") else None
    facts = facts_of(split, open_tokens, lengths=lengths, order=cfg.mhe_order, seed=seed)

    def build() -> LabelCodes:
        return LabelCodes(lengths, _order(cfg, split, open_tokens, lengths[-1]), {"order": cfg.mhe_order, "seed": seed})

    return cached(world, cfg.data_dir, "codes", facts, build, LabelCodes.load)


def chosen_lengths(cfg: Config, n_labels: int, width: int) -> tuple[int, ...]:
    """Of the heads, as the config says or automatic; ConfigError if there is no room for all labels."""
    if cfg.mhe_lengths:
        lengths = tuple(map(int, cfg.mhe_lengths.split("x")))
        check_room(lengths, n_labels)
        return lengths
    if cfg.mhe_groups:
        return lengths_of(n_labels, cfg.mhe_groups)
    if cfg.mhe_kind == "cascade":
        return automatic_lengths(n_labels, weight=cfg.mhe_open * (cfg.mhe_dim or CASCADE_DIM) / width)
    return automatic_lengths(n_labels, cfg.mhe_heads)


def _order(cfg: Config, split: Split, open_tokens: OpenTokens, block: int) -> Int64:
    n_labels = split.relevance.shape[1]
    match cfg.mhe_order:
        case "alphabetical":
            return alphabetical(Lines(cfg.data_dir / "raw" / "Y.txt"))
        case "frequency":
            return by_frequency(np.bincount(split.relevance.indices, minlength=n_labels))
        case "random":
            return np.random.default_rng(cfg.seed).permutation(n_labels)
    return block_order(label_features("pifa", split, open_tokens), block, cfg.seed)
