"""Random negatives of a text: functions of (seed, epoch, point) alone, whatever the batch, the process or the device.

B texts, K groups, L labels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.data.batching import Ints, hash64
from dexml.heads.candidates import Candidates, Groups

LAST = np.uint64(2**64 - 1)


def priorities(seed: int, epoch: int, points: Ints, ids: Ints) -> NDArray[np.uint64]:
    """[B, n] of ids [n] for points [B]: four steps of SplitMix64 over seed, epoch, point and id."""
    return hash64(seed, epoch, points[:, None], ids[None])


def random_groups(count: float, taken_BK: Tensor, seed: int, epoch: int, points: Ints) -> Tensor:
    """[B, n] groups that are not taken, those of the smallest priority; -1 where there are no more.

    Args:
        count: groups a text, below 1 a share of all of them.
    """
    n_groups = taken_BK.shape[1]
    wanted = math.ceil(count * n_groups) if count < 1 else int(count)
    order = priorities(seed, epoch, points, np.arange(n_groups))
    taken = taken_BK.cpu().numpy()
    order[taken] = LAST
    first = np.argsort(order, axis=1, kind="stable")[:, :wanted]
    free = np.take_along_axis(~taken, first, axis=1)
    return torch.from_numpy(np.where(free, first, -1)).to(taken_BK.device)


def random_labels(count: int, groups: Groups, found: Candidates, seed: int, epoch: int, points: Ints) -> Tensor:
    """Places [B, count] of labels that are no candidates: priority(0), priority(1), ... modulo L, each label once.

    Where fewer are left, -1.
    """
    n_labels, rows = len(groups.place_of), np.arange(len(points))[:, None]
    row, column = (x.cpu().numpy() for x in found.real.nonzero(as_tuple=True))
    taken = row * n_labels + groups.labels(found.place).cpu().numpy()[row, column]
    placed = (groups.place_of >= 0).cpu().numpy()
    wanted = np.minimum(count, placed.sum() - np.bincount(row, minlength=len(points)))
    draws = 2 * count + 16
    while True:
        drawn = (priorities(seed, epoch, points, np.arange(draws)) % np.uint64(n_labels)).astype(np.int64)
        fresh = placed[drawn] & ~np.isin(rows * n_labels + drawn, taken) & _first_in_row(rows * n_labels + drawn)
        if (fresh.sum(axis=1) >= wanted).all():
            break
        draws *= 2
    rank = np.cumsum(fresh, axis=1) - 1
    kept_row, kept_draw = np.nonzero(fresh & (rank < wanted[:, None]))
    labels = np.full((len(points), count), -1)
    labels[kept_row, rank[kept_row, kept_draw]] = drawn[kept_row, kept_draw]
    found_labels = torch.from_numpy(labels).to(groups.place_of.device)
    return groups.place_of[found_labels.clamp(min=0)].where(found_labels >= 0, -1)


def _first_in_row(keys: Ints) -> NDArray[np.bool_]:
    """[B, n] whether a key, other in every row, stands there for the first time."""
    first = np.zeros(keys.size, bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first.reshape(keys.shape)
