import json

import numpy as np
import pytest

from dexml.evaluation import Calibration, CalibrationError, candidates, reliability
from tests.evaluation.examples import e2


def synthetic(temperature: float, shift: float, size: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores as cosines, and hits drawn with the probability that temperature and shift give them."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.9, size)
    return scores, rng.random(size) < 1 / (1 + np.exp(-(scores - shift) / temperature))


# ---- how well -------------------------------------------------------------------------------------------------------


def test_the_error_of_what_is_right_is_small_and_of_what_is_not_its_distance() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(100_000)
    hits = rng.random(100_000) < p
    assert reliability(p, hits).error < 0.01
    assert reliability(np.full(1000, 0.9), np.arange(1000) < 400).error == pytest.approx(0.5)
    assert reliability(p, rng.random(100_000) < p**2).error > 0.1


def test_the_curve_on_a_few_candidates() -> None:
    curve = reliability([0.0, 0.1, 0.3, 0.9, 1.0], [0, 1, 0, 1, 1], bins=4)
    assert curve.count.tolist() == [2, 1, 2]  # the bin 0.5..0.75 is empty
    assert curve.confidence.tolist() == pytest.approx([0.05, 0.3, 0.95])
    assert curve.accuracy.tolist() == pytest.approx([0.5, 0, 1])
    assert curve.error == pytest.approx((2 * 0.45 + 0.3 + 2 * 0.05) / 5)


def test_candidates_are_the_labels_of_the_lists_without_padding() -> None:
    e = e2()
    scores, hits = candidates(e.ids, e.scores, e.truth)
    assert scores.tolist() == pytest.approx([0.7, 0.7, 0.2, 0.95, 0.9, 0.1, 0.5, 0.4])
    assert hits.tolist() == [True, True, False, False, True, False, False, True]


# ---- a temperature and a shift --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "shift"), [(0.05, 0.6), (0.2, 0.3), (1.5, 0.0)])
def test_the_known_temperature_and_shift_are_found(temperature: float, shift: float) -> None:
    scores, hits = synthetic(temperature, shift)
    found = Calibration.fit(scores, hits)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.shift == pytest.approx(shift, abs=0.1 * temperature)
    assert reliability(found.probability(scores), hits).error < 0.005


def test_it_is_the_maximum_of_the_likelihood_of_the_smoothed_targets() -> None:
    scores, hits = synthetic(0.1, 0.5, 300)
    true = hits.sum()
    targets = np.where(hits, (true + 1) / (true + 2), 1 / (len(hits) - true + 2))

    def loss(temperature: float, shift: float) -> float:
        p = Calibration(temperature, shift).probability(scores)
        return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum())

    best = Calibration.fit(scores, hits)
    assert best.probability(scores).sum() == pytest.approx(targets.sum(), abs=1e-6)
    least = loss(best.temperature, best.shift)
    for factor, moved in ((1.01, 0), (0.99, 0), (1, 0.001), (1, -0.001)):
        assert loss(best.temperature * factor, best.shift + moved) > least


def test_moving_and_stretching_the_scores_moves_and_stretches_the_fit() -> None:
    scores, hits = synthetic(0.1, 0.5, 500)
    plain, moved = Calibration.fit(scores, hits), Calibration.fit(1000 + 50 * scores, hits)
    assert moved.temperature == pytest.approx(50 * plain.temperature, rel=1e-6)
    assert moved.shift == pytest.approx(1000 + 50 * plain.shift, rel=1e-6)


def test_separable_scores_have_a_finite_temperature() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    found = Calibration.fit(scores, scores > 0.5)
    assert found.temperature > 0 and found.shift == pytest.approx(0.5, abs=1e-6)
    assert (found.probability(scores) > 0.5).tolist() == (scores > 0.5).tolist()


def test_probabilities_keep_the_order_and_reach_both_ends_without_overflow() -> None:
    found = Calibration(0.01, 0.5)
    p = found.probability([-np.inf, -1e300, 0.4, 0.5, 0.6, 1e300])
    assert (np.diff(p) >= 0).all() and (p[0], p[3], p[-1]) == (0, 0.5, 1)
    assert found.probability(found.score(0.9)) == pytest.approx(0.9)
    assert found.probability(np.zeros((2, 3))).shape == (2, 3)


def test_it_survives_json() -> None:
    found = Calibration.fit(*synthetic(0.1, 0.5, 100))
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("scores", "hits", "message"),
    [
        ([0.1, 0.2], [1, 1], "all of the 2 labels found are true"),
        ([0.1, 0.2], [0, 0], "none of the 2 labels found are true"),
        ([0.3, 0.3], [0, 1], "all scores are 0.3"),
        ([0.1, 0.9], [1, 0], "true less often"),
        ([0.1, -np.inf], [1, 0], "padding"),
        ([0.1, 0.2], [1, 2], "hits 0 or 1"),
        ([], [], "0 values and 0 hits"),
        ([0.1], [1, 0], "1 values and 2 hits"),
    ],
)
def test_scores_that_cannot_be_calibrated_are_refused(scores: list[float], hits: list[int], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Calibration.fit(scores, hits)


@pytest.mark.parametrize(
    "values", [{}, {"temperature": 1.0}, {"temperature": "1", "shift": 0}, {"temperature": 1, "shift": 0, "x": 2},
               {"temperature": 0, "shift": 1}, {"temperature": float("nan"), "shift": 1}],
)  # fmt: skip
def test_what_is_no_calibration_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(CalibrationError):
        Calibration.from_dict(values)


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"all in 0\.\.1"):
        reliability([0.5, 1.2], [0, 1])
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        Calibration(1, 0).score(1.0)
    with pytest.raises(CalibrationError, match="shape"):
        candidates([[0]], [[0.1, 0.2]], e2().truth[:1])
