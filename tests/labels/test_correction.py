"""Weighted in-batch negatives stand for all labels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dexml.labels.correction import LogQ

RELEVANCE = csr_matrix(
    np.array(
        [
            [1, 1, 0, 0, 0],
            [1, 0, 2, 0, 0],
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 3],
            [1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [1, 0, 0, 0, 0],
        ],
        np.float32,
    )
)


@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_a_weight_is_one_over_the_chance_counted_over_all_batches(batch_size: int) -> None:
    found = LogQ(RELEVANCE, sampled=False).log_weights(np.arange(5), batch_size)
    hits = RELEVANCE.toarray() > 0
    for label in (0, 1, 2, 4):
        point = int(np.flatnonzero(~hits[:, label])[0])
        others = [i for i in range(7) if i != point]
        batches = [hits[list(chosen), label].any() for chosen in combinations(others, batch_size - 1)]
        assert found[label] == pytest.approx(-np.log(np.mean(batches)), abs=1e-9)


def test_the_weighted_sum_over_batches_is_the_sum_over_all_labels() -> None:
    """E[sum of weight * e^s over the negatives in the batch] = sum of e^s over all negatives that have a point."""
    weights = np.exp(LogQ(RELEVANCE, sampled=False).log_weights(np.arange(5), 3))
    hits, scores = RELEVANCE.toarray() > 0, np.array([0.3, -1.0, 2.0, 0.0, 1.5])
    point = 2
    negatives = [label for label in range(5) if not hits[point, label] and hits[:, label].any()]
    others = [i for i in range(7) if i != point]
    sums = []
    for chosen in combinations(others, 2):
        present = [label for label in negatives if hits[list(chosen), label].any()]
        sums.append((weights[present] * np.exp(scores[present])).sum())
    assert np.mean(sums) == pytest.approx(np.exp(scores[negatives]).sum(), rel=1e-9)


def test_sampled_positives_count_by_their_share_of_relevance() -> None:
    counted, sampled = (LogQ(RELEVANCE, on).hits for on in (False, True))
    assert counted.tolist() == [6, 3, 1, 0, 1]
    shares = [1 / 2 + 1 / 3 + 1 + 1 / 5 + 1 + 1, 1 / 2 + 1 / 5 + 1, 2 / 3, 0, 3 / 5]
    np.testing.assert_allclose(sampled, shares, rtol=1e-6)


def test_weights_stay_finite_for_a_batch_of_one_and_of_everything() -> None:
    logq = LogQ(RELEVANCE, sampled=False)
    for batch_size in (1, 6, 7, 100):
        found = logq.log_weights(np.arange(5), batch_size)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
    assert logq.log_weights(np.array([0, 1, 2]), 7).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
