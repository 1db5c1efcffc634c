"""Grouped batches: every point once an epoch, neighbours together, the same for any start."""

from __future__ import annotations

import numpy as np
import pytest

from dexml.data.clusterbatches import grouped_batches

ORDER = np.random.default_rng(1).permutation(103) + 50


@pytest.mark.parametrize("group", [1, 4, 10, 200])
def test_an_epoch_has_every_point_once(group: int) -> None:
    batches = list(grouped_batches(ORDER, group, 20, seed=0, epoch=3))
    assert [len(batch.points) for batch in batches] == [20, 20, 20, 20, 20, 3]
    assert sorted(np.concatenate([batch.points for batch in batches])) == sorted(ORDER)
    assert [batch.step for batch in batches] == list(range(18, 24))


def test_neighbours_stay_together() -> None:
    place = {int(point): i for i, point in enumerate(ORDER)}
    batches = list(grouped_batches(ORDER, 10, 20, seed=0, epoch=0))
    steps = np.diff([place[int(point)] for batch in batches for point in batch.points])
    assert np.isin(steps, [1, 1 - len(ORDER)]).mean() > 0.85


def test_epochs_differ_and_a_later_start_gives_the_same_batches() -> None:
    one, two = (list(grouped_batches(ORDER, 4, 20, seed=0, epoch=epoch)) for epoch in (0, 1))
    assert not np.array_equal(one[0].points, two[0].points)
    for batch, again in zip(two[2:], grouped_batches(ORDER, 4, 20, seed=0, epoch=1, start=2), strict=True):
        assert np.array_equal(batch.points, again.points) and batch.step == again.step
