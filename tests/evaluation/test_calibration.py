import json
from dataclasses import replace

import numpy as np
import pytest

from dexml.evaluation import Calibration, CalibrationError, candidates, reliability
from dexml.evaluation.calibration import RIVALS
from tests.evaluation.examples import e2


def synthetic(true: Calibration, points: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Lists of scores as cosines, some points with higher ones than others, and hits drawn with their probability."""
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.uniform(0.2, 0.9, (points, RIVALS)) - rng.uniform(-0.2, 0.2, (points, 1)), axis=1)
    return scores, rng.random(scores.shape) < true.probability(scores)


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


def test_candidates_are_the_labels_of_the_lists_and_padding_is_told() -> None:
    e = e2()
    scores, hits = candidates(e.ids, e.scores, e.truth)
    real = np.isfinite(scores)
    assert scores.shape == hits.shape == e.ids.shape
    assert (scores[~real] == -np.inf).all() and not hits[~real].any()
    assert scores[real].tolist() == pytest.approx([0.7, 0.7, 0.2, 0.95, 0.9, 0.1, 0.5, 0.4])
    assert hits[real].tolist() == [True, True, False, False, True, False, False, True]


# ---- what makes them so ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "shift"), [(0.05, 0.6), (0.2, 0.3), (1.5, 0.0)])
def test_the_known_temperature_and_shift_are_found_where_lists_do_not_matter(temperature: float, shift: float) -> None:
    scores, hits = synthetic(Calibration(temperature, shift))
    found = Calibration.fit(scores, hits)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert abs(found.rivalry) < 0.2 * max(1, temperature)
    assert reliability(found.probability(scores), hits).error < 0.005


@pytest.mark.parametrize("rivalry", [0.5, 1.0])
def test_the_known_weight_of_the_level_is_found(rivalry: float) -> None:
    spread = synthetic(Calibration(1, 0))[0].std()
    true = Calibration(0.05, 0.6 * (1 - rivalry) - 0.05, rivalry, 0.25 * spread)
    scores, hits = synthetic(true)
    found = Calibration.fit(scores, hits)
    assert found.rival_scale == pytest.approx(true.rival_scale)
    assert found.rivalry == pytest.approx(rivalry, rel=0.05)
    assert found.temperature == pytest.approx(0.05, rel=0.05)
    alone = Calibration.fit(scores.reshape(-1, 1), hits.reshape(-1, 1))  # every label a list of its own
    assert reliability(found.probability(scores)[:, 0], hits[:, 0]).error < 0.02
    assert reliability(alone.probability(scores.reshape(-1, 1)).reshape(scores.shape)[:, 0], hits[:, 0]).error > 0.05


def test_it_is_the_maximum_of_the_likelihood_of_the_smoothed_targets() -> None:
    scores, hits = synthetic(Calibration(0.1, 0.5), 30)
    true = hits.sum()
    targets = np.where(hits, (true + 1) / (true + 2), 1 / (hits.size - true + 2))

    def loss(calibration: Calibration) -> float:
        p = calibration.probability(scores)
        return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum())

    best = Calibration.fit(scores, hits)
    assert best.probability(scores).sum() == pytest.approx(targets.sum(), abs=1e-6)
    for change in ({"temperature": best.temperature * 1.01}, {"temperature": best.temperature * 0.99},
                   {"shift": best.shift + 0.001}, {"shift": best.shift - 0.001},
                   {"rivalry": best.rivalry + 0.01}, {"rivalry": best.rivalry - 0.01}):  # fmt: skip
        assert loss(replace(best, **change)) > loss(best)
    for factor in (0.25, 0.5, 1, 2):  # of the scales tried the best is taken
        scale = factor * scores.std()
        others = [replace(best, rival_scale=scale, rivalry=best.rivalry * weight) for weight in (0.9, 1, 1.1)]
        assert all(loss(other) >= loss(best) - 1e-9 for other in others)


def test_moving_and_stretching_the_scores_moves_and_stretches_the_fit() -> None:
    scores, hits = synthetic(Calibration(0.1, 0.5), 50)
    plain, moved = Calibration.fit(scores, hits), Calibration.fit(1000 + 50 * scores, hits)
    assert moved.temperature == pytest.approx(50 * plain.temperature, rel=1e-5)
    np.testing.assert_allclose(moved.probability(1000 + 50 * scores), plain.probability(scores), atol=1e-6)


def test_separable_scores_have_a_finite_temperature() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.3, 0.2, 0.1]])
    found = Calibration.fit(scores, scores > 0.5)
    assert found.temperature > 0 and found.rivalry == 0
    assert (found.probability(scores) > 0.5).tolist() == (scores > 0.5).tolist()


def test_probabilities_keep_the_order_and_reach_both_ends_without_overflow() -> None:
    for found in (Calibration(0.01, 0.5), Calibration(0.01, 0.0, 1.0, 0.05)):
        p = found.probability(
            [[1e300, 0.6, 0.5, 0.4, -1e300, -np.inf], [-np.inf] * 6, [0.5, 0.4, -np.inf, *[-np.inf] * 3]]
        )
        assert np.isfinite(p).all() and (np.diff(p, axis=1) <= 0).all()
        assert (p[0, -1], p[1].max(), p[2, 2]) == (0, 0, 0)
        assert found.probability(np.zeros((2, 3))).shape == (2, 3)
    assert Calibration(0.01, 0.5).probability([0.5])[0] == 0.5


def test_padding_and_places_beyond_the_rivals_change_nothing() -> None:
    scores, hits = synthetic(Calibration(0.05, 0.3, 0.5, 0.05), 500)
    deeper = np.concatenate([scores, scores[:, -1:] - 0.1, np.full((500, 3), -np.inf)], axis=1)
    more = np.concatenate([hits, np.ones((500, 4), bool)], axis=1)
    assert Calibration.fit(deeper, more) == Calibration.fit(scores, hits)


def test_it_survives_json() -> None:
    found = Calibration.fit(*synthetic(Calibration(0.1, 0.5), 100))
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("scores", "hits", "message"),
    [
        ([0.1, 0.2], [1, 1], "all of the 2 labels found are true"),
        ([0.1, 0.2], [0, 0], "none of the 2 labels found are true"),
        ([0.3, 0.3], [0, 1], "all scores are 0.3"),
        ([0.9, 0.1], [0, 1], "true less often"),
        ([0.1, np.nan], [1, 0], "finite"),
        ([0.1, 0.2], [1, 2], "hits 0 or 1"),
        ([], [], "0 values and 0 hits"),
        ([0.1], [1, 0], r"scores \(1, 1\) and hits \(1, 2\)"),
    ],
)
def test_scores_that_cannot_be_calibrated_are_refused(scores: list[float], hits: list[int], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Calibration.fit([scores], [hits])


RIGHT = {"temperature": 1.0, "shift": 0, "rivalry": 0.5, "rival_scale": 1}


@pytest.mark.parametrize(
    "change", [{"temperature": "1"}, {"x": 2}, {"temperature": 0}, {"rival_scale": -1}, {"shift": float("nan")}]
)
def test_what_is_no_calibration_is_refused(change: dict[str, object]) -> None:
    Calibration.from_dict(RIGHT)
    for wrong in (RIGHT | change, {}, {"temperature": 1.0, "shift": 0}):
        with pytest.raises(CalibrationError):
            Calibration.from_dict(wrong)


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"all in 0\.\.1"):
        reliability([0.5, 1.2], [0, 1])
    with pytest.raises(CalibrationError, match="shape"):
        candidates([[0]], [[0.1, 0.2]], e2().truth[:1])
