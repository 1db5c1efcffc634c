"""Which codes the labels of a data set get: the lengths of the heads, and the order of the labels.

L labels, G groups: the first digit of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]
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


def alphabetical(label_texts: Sequence[str]) -> Ints:
    """[L] labels by their texts as strings (the published order), of equal ones the smaller id first."""
    return np.array(sorted(range(len(label_texts)), key=label_texts.__getitem__), np.int64)


def by_frequency(counts: Ints) -> Ints:
    """[L] labels by their training points [L], most first, of equal ones the smaller id first."""
    return np.argsort(-counts, kind="stable")
