"""Random negatives: the worked priorities, a slow twin, independence of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dexml.heads.candidates import Candidates, Groups
from dexml.heads.lightxml_negatives import priorities, random_groups, random_labels
from tests.heads.test_candidates import some_groups


@pytest.mark.parametrize(
    ("seed", "epoch", "point", "order", "first"),
    [
        (0, 0, 0, [0, 1, 9, 4, 2, 3, 6, 8, 7, 5], 0x2130748AAAC80268),
        (6088, 1, 42, [9, 8, 6, 4, 2, 7, 5, 0, 1, 3], 0xD422912CE77AD6C3),
    ],
)
def test_the_worked_priorities(seed: int, epoch: int, point: int, order: list[int], first: int) -> None:
    found = priorities(seed, epoch, np.array([point]), np.arange(10))[0]
    assert int(found[0]) == first
    assert np.argsort(found).tolist() == order


def test_a_hundredth_of_8192_clusters_is_82_none_of_them_taken() -> None:
    taken = torch.rand(3, 8192, generator=torch.Generator().manual_seed(0)) < 0.1
    points = np.array([5, 9, 2])
    found = random_groups(0.01, taken, 1, 2, points)
    assert found.shape == (3, 82)
    assert not taken.gather(1, found).any()
    assert all(len(set(row)) == 82 for row in found.tolist())
    assert torch.equal(random_groups(0.01, taken[2:], 1, 2, points[2:])[0], found[2])
    assert not torch.equal(random_groups(0.01, taken, 1, 3, points), found)


def test_where_no_groups_are_left_there_are_fewer() -> None:
    taken = torch.tensor([[True, False, True], [True, True, True]])
    assert random_groups(2, taken, 0, 0, np.arange(2)).tolist() == [[1, -1], [-1, -1]]


def naive(count: int, groups: Groups, taken: set[int], seed: int, epoch: int, point: int) -> list[int]:
    n_labels = len(groups.place_of)
    allowed = {label for label in range(n_labels) if groups.place_of[label] >= 0} - taken
    found: list[int] = []
    j = 0
    while len(found) < min(count, len(allowed)):
        label = int(priorities(seed, epoch, np.array([point]), np.array([j]))[0, 0] % np.uint64(n_labels))
        if label in allowed and label not in found:
            found.append(label)
        j += 1
    return found


def test_random_labels_are_those_of_the_walk() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        n_labels = int(rng.integers(1, 30))
        groups = some_groups(rng, n_labels)
        place = torch.from_numpy(
            np.where(rng.random((3, 8)) < 0.5, -1, rng.permuted(np.tile(np.arange(8), (3, 1)), axis=1))
        )
        place = place.where(groups.labels(place.clamp(max=groups.label_at.numel() - 1)) >= 0, -1)
        place = place.where(place < groups.label_at.numel(), -1)
        points, count = rng.integers(0, 99, 3), int(rng.integers(1, 12))
        got = random_labels(count, groups, Candidates(place, place < -1), 3, 1, points)
        for i in range(3):
            taken = {label for label in groups.labels(place[i]).tolist() if label >= 0}
            expected = naive(count, groups, taken, 3, 1, int(points[i]))
            assert groups.labels(got[i]).tolist() == expected + [-1] * (count - len(expected))
