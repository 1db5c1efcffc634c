"""AUROC and average precision against counting pairs, and scikit-learn where no scores are equal."""

from __future__ import annotations

import numpy as np
import pytest

from dexml.evaluation.detection import DetectionError, auroc, average_precision


def test_the_worked_example() -> None:
    scores, positive = [0.9, 0.8, 0.3, 0.2], [1, 0, 1, 0]
    assert auroc(scores, positive) == 0.75
    assert average_precision(scores, positive) == pytest.approx(0.833333, abs=1e-6)
    assert auroc([0.5] * 4, positive) == 0.5


def naive(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    pairs = [np.sign(a - b) / 2 + 0.5 for a in scores[positive] for b in scores[~positive]]
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    places = [place for place, i in enumerate(ranked, start=1) if positive[i]]
    return float(np.mean(pairs)), float(np.mean([n / place for n, place in enumerate(places, start=1)]))


@pytest.mark.parametrize("ties", [True, False])
def test_both_are_counted_pair_by_pair(ties: bool) -> None:
    rng = np.random.default_rng(int(ties))
    for _ in range(100):
        n = int(rng.integers(2, 40))
        scores = rng.integers(0, 4, n) / 4 if ties else rng.random(n)
        positive = rng.permutation(np.arange(n) < rng.integers(1, n))
        assert (auroc(scores, positive), average_precision(scores, positive)) == pytest.approx(naive(scores, positive))


def test_scikit_learn_says_the_same() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    scores, positive = rng.random(500), rng.random(500) < 0.2
    assert auroc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert average_precision(scores, positive) == pytest.approx(metrics.average_precision_score(positive, scores))


def test_places_of_points_are_items_in_reading_order() -> None:
    scores, wrong = np.zeros((2, 2)), np.array([[False, True], [True, True]])
    assert average_precision(scores, wrong) == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(scores[::-1], wrong[::-1]) == pytest.approx((1 + 1 + 3 / 4) / 3)


@pytest.mark.parametrize("positive", [[0, 0], [1, 1]])
def test_one_kind_alone_is_refused(positive: list[int]) -> None:
    for judge in (auroc, average_precision):
        with pytest.raises(DetectionError, match="all 2 items are of one kind"):
            judge([0.1, 0.2], positive)


def test_bad_scores_are_refused() -> None:
    with pytest.raises(DetectionError, match="2 scores for 3 items"):
        auroc([0.1, 0.2], [0, 1, 1])
    with pytest.raises(DetectionError, match="not nan"):
        auroc([0.1, np.nan], [0, 1])
