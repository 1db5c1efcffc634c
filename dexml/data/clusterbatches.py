"""Batches of points that are near each other: labels of one point are then hard negatives of the next.

Compare NGAME (Dahiya et al., WSDM 2023, arXiv 2207.04452), whose batches are clusters of stale embeddings. A pure
function of (order, seed, epoch), as batches of points one by one are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dexml.data.batching import Batch, Ints, steps_per_epoch


def grouped_batches(order: Ints, group: int, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
    """The batches of an epoch from number `start` on: groups of `group` points that follow each other in `order`, in
    an order drawn from (seed, epoch), cut into `size` points each.

    Args:
        order: points, the near ones beside each other. Where groups begin is drawn anew every epoch.
    """
    rng = np.random.default_rng([seed, epoch])
    turned = np.roll(order, int(rng.integers(len(order))))
    number = rng.permutation(-(-len(order) // group))[np.arange(len(order)) // group]
    points = turned[np.argsort(number, kind="stable")]
    per_epoch = steps_per_epoch(len(points), size)
    for i in range(start, per_epoch):
        yield Batch(points[i * size : (i + 1) * size], epoch, epoch * per_epoch + i)
