import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from dexml.evaluation import (
    PointSums,
    TopkError,
    apply_filters,
    bootstrap,
    compare,
    compute_metrics,
    intervals,
    metrics,
    point_sums,
)
from tests.evaluation.examples import csr, e1, e2


def random_case(seed: int, points: int = 80) -> tuple[npt.NDArray[np.int64], sparse.csr_array, npt.NDArray[np.float64]]:
    """Ids [N, 10], truth [N, 30] with points without labels, weights [30]."""
    rng = np.random.default_rng(seed)
    truth = sparse.csr_array((rng.random((points, 30)) < 0.08).astype(float))
    return np.argsort(rng.random((points, 30)), axis=1)[:, :10], truth, rng.random(30) + 1


def fractions(rights: list[int]) -> PointSums:
    """One metric with the value 0 or 1 at every point."""
    return PointSums(("P@1",), np.array(rights, float)[:, None], np.ones((len(rights), 1)))


def totals(sums: PointSums) -> dict[str, tuple[float, float]]:
    sides = zip(sums.numerator.sum(axis=0), sums.denominator.sum(axis=0), strict=True)
    return dict(zip(sums.names, sides, strict=True))


def test_sums_behind_the_first_worked_example() -> None:
    e = e1()
    got = totals(point_sums(e.ids, e.truth, (1, 2, 3, 4, 5), e.q))
    above = {
        "PSP": (6.344195, 9.475720, 12.033152, 12.033152, 14.137108),
        "PSnDCG": (6.344195, 5.915286, 6.047142, 5.689478, 6.007217),
    }
    below = {
        "PSP": (7.792912, 12.033152, 14.137108, 15.819916, 15.819916),
        "PSnDCG": (7.792912, 7.232472, 7.043475, 6.869021, 6.869021),
    }
    for name in above:
        for k in range(1, 6):
            assert got[f"{name}@{k}"] == pytest.approx((above[name][k - 1], below[name][k - 1]), abs=1e-6)
    assert got["P@3"] == pytest.approx((5 / 3, 4))


def test_sums_behind_the_second_worked_example() -> None:
    e = e2()
    ids, _ = apply_filters(e.ids, e.scores, e.filters, 5)
    got = totals(point_sums(ids, e.truth, (1, 3, 5), e.q))
    for name, sides in {
        "PSP@1": (8.485842, 14.935697),
        "PSP@3": (11.371764, 27.681388),
        "PSP@5": (11.371764, 27.681388),
        "PSnDCG@3": (7.117223, 13.492760),
    }.items():
        assert got[name] == pytest.approx(sides, abs=1e-6)


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_totals_are_the_metrics(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", block)
    ids, truth, q = random_case(0)
    options = {"ks": (1, 3, 5), "inv_propensity": q, "recall_ks": (10,), "extras": ("Hit", "PSR")}
    sums = point_sums(ids, truth, **options)  # type: ignore[arg-type]
    assert sums.values() == pytest.approx(compute_metrics(ids, truth, **options), abs=1e-9)  # type: ignore[arg-type]
    some = np.arange(80) % 3 == 0
    wanted = compute_metrics(ids[some], truth[some], **options)  # type: ignore[arg-type]
    assert sums.rows(some).values() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("cells", [50, 1 << 22])
def test_bootstrap_is_that_of_a_loop_over_resamples(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_CELLS", cells)
    ids, truth, q = random_case(1)
    got = bootstrap(point_sums(ids, truth, (1, 5), q), resamples=200, level=0.8, seed=3)
    rng = np.random.default_rng(3)
    draws = [rng.integers(80, size=80) for _ in range(200)]
    values = [compute_metrics(ids[drawn], truth[drawn], (1, 5), q) for drawn in draws]
    assert set(got) == set(values[0])
    for name, ends in got.items():
        assert ends == pytest.approx(np.quantile([one[name] for one in values], [0.1, 0.9]), abs=1e-9)


def test_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        low, high = bootstrap(fractions(list(rng.random(100) < 0.3)), 200, 0.9, seed)["P@1"]
        held += low <= 30 <= high
    assert 165 <= held <= 195  # 180 expected


def test_intervals_narrow_with_points_and_widen_with_the_level() -> None:
    few, many = fractions([0, 1] * 50), fractions([0, 1] * 800)
    width = {
        (name, level): np.diff(bootstrap(sums, 500, level)["P@1"])[0]
        for name, sums in (("few", few), ("many", many))
        for level in (0.5, 0.95)
    }
    assert width["few", 0.95] == pytest.approx(2 * 1.96 * 5, rel=0.1)  # percent points: the normal approximation
    assert width["many", 0.95] == pytest.approx(width["few", 0.95] / 4, rel=0.15)
    assert width["few", 0.5] < width["few", 0.95]


def test_the_seed_decides() -> None:
    sums = fractions([0, 1, 1, 0, 1, 0, 0] * 9)
    assert bootstrap(sums, seed=1) == bootstrap(sums, seed=1) != bootstrap(sums, seed=2)


def test_one_point_and_points_without_labels_have_an_interval() -> None:
    sums = point_sums([[0]], csr([{}], 2), (1,), [1.0, 2.0])
    assert set(bootstrap(sums, 10).values()) == {(0.0, 0.0)}


def test_a_run_beside_itself_differs_in_nothing() -> None:
    ids, truth, q = random_case(2)
    sums = point_sums(ids, truth, (1, 5), q)
    for one in compare(sums, sums, 100).values():
        assert (one.difference, one.low, one.high, one.p_value) == (0, 0, 0, 1)


def test_the_p_value_is_that_of_the_sign_test() -> None:
    a, b = fractions([1] * 9 + [0] * 91), fractions([0] * 7 + [1] + [0] * 92)  # eight points won, none lost
    one = compare(a, b, resamples=20_000)["P@1"]
    assert one.difference == pytest.approx(8.0)
    assert one.p_value == pytest.approx(2 / 2**8, abs=0.003)
    assert one.low == pytest.approx(3, abs=1.01) and one.high == pytest.approx(14, abs=1.01)


def test_paired_intervals_are_narrower_than_single_ones_and_exact_in_sign() -> None:
    ids, truth, q = random_case(4, 300)
    worse = ids.copy()
    worse[::10] = ids[::10, ::-1]  # few points differ
    a, b = point_sums(ids, truth, (5,), q), point_sums(worse, truth, (5,), q)
    forth, back = compare(a, b, 300), compare(b, a, 300)
    single = bootstrap(a, 300)
    for name, one in forth.items():
        assert one.difference == pytest.approx(a.values()[name] - b.values()[name], abs=1e-9)
        assert one.low <= one.difference <= one.high
        assert one.high - one.low <= single[name][1] - single[name][0]
        assert (back[name].low, back[name].high) == pytest.approx((-one.high, -one.low), abs=1e-9)
        assert back[name].p_value == pytest.approx(one.p_value, abs=0.02)


def test_runs_on_other_points_or_with_other_metrics_are_refused() -> None:
    ids, truth, q = random_case(5)
    a = point_sums(ids, truth, (1,), q)
    for other in (point_sums(ids, truth, (1,)), a.rows(np.arange(79)), point_sums(ids, truth[::-1], (1,), q)):
        with pytest.raises(TopkError, match="compare like with like"):
            compare(a, other)
    with pytest.raises(TopkError, match=r"P@7 not measured: there are P@1, nDCG@1"):
        a.only(["P@7"])
    with pytest.raises(TopkError, match="level"):
        bootstrap(a, level=95)
