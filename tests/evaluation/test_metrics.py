from collections.abc import Mapping

import numpy as np
import pytest
from scipy import sparse

from dexml.evaluation import (
    TopkError,
    apply_filters,
    compute_metrics,
    coverage,
    inverse_propensity,
    metrics,
    recall_depths,
    upper_bounds,
)
from dexml.index import rank_topk
from tests.evaluation.examples import csr, e1, e2, lists
from tests.helpers.metrics_reference import naive_metrics

E1_COUNT = {
    "P": (0.75, 0.5, 0.416667, 0.3125, 0.3),
    "R": (0.4375, 0.5, 0.625, 0.625, 0.6875),
    "RP": (0.75, 0.625, 0.666667, 0.625, 0.6875),
    "nDCG": (0.75, 0.653287, 0.671270, 0.639101, 0.676856),
    "PSP": (0.814098, 0.787468, 0.851175, 0.760633, 0.893627),
    "PSnDCG": (0.814098, 0.817879, 0.858545, 0.828281, 0.874538),
    "PSR": (0.860562, 0.773531, 0.914782, 0.856410, 0.936190),
    "Hit": (0.75, 0.75, 0.75, 0.75, 0.75),
}
E1_DROP = {
    "P": (1, 0.666667, 0.555556, 0.4),
    "R": (0.583333, 0.666667, 0.833333, 0.916667),
    "RP": (1, 0.833333, 0.888889, 0.916667),
    "nDCG": (1, 0.871049, 0.895027, 0.902474),
    "PSP": (0.814098, 0.787468, 0.851175, 0.893627),
    "PSnDCG": (0.814098, 0.817879, 0.858545, 0.874538),
}
E2 = {
    "P": (0.6, 0.266667, 0.16),
    "R": (0.4, 0.5, 0.5),
    "RP": (0.6, 0.5, 0.5),
    "nDCG": (0.6, 0.522629, 0.522629),
    "PSP": (0.568158, 0.410809, 0.410809),
    "PSnDCG": (0.568158, 0.527485, 0.527485),
}


def table(columns: Mapping[str, tuple[float, ...]], ks: tuple[int, ...]) -> dict[str, float]:
    return {f"{name}@{k}": 100 * value for name, values in columns.items() for k, value in zip(ks, values, strict=True)}


def approx(expected: dict[str, float]) -> object:
    return pytest.approx(expected, abs=1e-4)  # 1e-6 as a fraction


def test_worked_example_with_a_point_without_labels() -> None:
    e, ks = e1(), (1, 2, 3, 4, 5)
    for k in ks:
        got = compute_metrics(e.ids, e.truth, ks, e.q, recall_ks=(), mrr_k=k, extras=("Hit", "PSR"))
        assert got == approx(table(E1_COUNT, ks) | {f"MRR@{k}": 75.0})


def test_worked_example_with_points_without_labels_dropped() -> None:
    e, ks = e1(), (1, 2, 3, 5)
    for k in ks:
        got = compute_metrics(e.ids, e.truth, ks, e.q, recall_ks=(), mrr_k=k, empty="drop")
        assert got == approx(table(E1_DROP, ks) | {f"MRR@{k}": 100.0})


def test_worked_example_with_filter_tie_short_rows_and_unseen_label() -> None:
    e, ks = e2(), (1, 3, 5)
    got = compute_metrics(e.ids, e.truth, ks, e.q, filters=e.filters, recall_ks=(), mrr_k=5)
    assert got == approx(table(E2, ks) | {"MRR@5": 60.0})


def test_ignoring_the_filter_gives_other_numbers() -> None:
    e = e2()
    got = compute_metrics(e.ids, e.truth, (1, 3), e.q, mrr_k=3)
    wanted = {"P@1": 40, "R@1": 20, "nDCG@3": 44.8815, "MRR@3": 50, "PSP@1": 43.0094, "PSnDCG@3": 47.1080}
    assert {key: got[key] for key in wanted} == approx(wanted)


def test_the_order_of_a_tie_moves_psp_and_nothing_else() -> None:
    e = e2()
    other = e.ids.copy()
    other[0, :2] = 3, 0
    a, b = (compute_metrics(ids, e.truth, (1, 3), e.q, filters=e.filters) for ids in (e.ids, other))
    assert (b["PSP@1"], b["PSnDCG@3"]) == pytest.approx((63.9621, 54.5386), abs=1e-4)
    assert {key for key in a if a[key] != b[key]} == {"PSP@1", "PSnDCG@1", "PSnDCG@3"}


def test_worked_example_two_dropped_points() -> None:
    e = e2()
    got = compute_metrics(e.ids, e.truth, (1, 3, 5), filters=e.filters, mrr_k=5, empty="drop")
    wanted = {"P": (0.75, 0.333333, 0.2), "R": (0.5, 0.625, 0.625), "nDCG": (0.75, 0.653287, 0.653287)}
    expected = table(wanted, (1, 3, 5)) | {"MRR@5": 75.0}
    assert {key: got[key] for key in expected} == approx(expected)


def test_dual_encoder_example() -> None:
    rows = [
        {0: 0.9, 1: 0.8, 2: 0.7, 4: 0.1},
        {0: 0.2, 1: 0.9, 2: 0.5, 3: 0.4, 4: 0.3},
        {0: 0.1, 1: 0.6, 2: 0.5, 3: 0.4, 4: 0.3},
    ]
    ids, _ = rank_topk(*lists(rows, 10))
    got = compute_metrics(ids, csr([{0, 2}, {1}, {2, 3, 4}], 5), inv_propensity=[1.5, 2, 1, 4, 3])
    wanted = {"P@1": 66.67, "P@3": 55.56, "P@5": 40.0, "nDCG@1": 66.67, "nDCG@3": 81.68, "nDCG@5": 88.42}
    wanted |= {"MRR@10": 83.33, "PSP@1": 46.67, "PSP@3": 76.0, "PSP@5": 100.0, "R@10": 100.0}
    assert {key: got[key] for key in wanted} == pytest.approx(wanted, abs=0.01)


def test_an_unseen_label_stays_in_the_denominators() -> None:
    got = compute_metrics([[0, 1]], csr([{0, 3}], 4), ks=(1, 2))
    assert (got["R@1"], got["RP@2"], got["nDCG@2"]) == pytest.approx((50, 50, 100 / 1.630930), abs=1e-4)


def test_psp_is_a_ratio_of_sums() -> None:
    assert compute_metrics([[0], [0]], csr([{0}, {1}], 2), (1,), [1, 3])["PSP@1"] == pytest.approx(25.0, abs=1e-12)


def test_bounds_and_monotone_recall_on_random_data() -> None:
    rng = np.random.default_rng(5)
    truth = sparse.csr_array((rng.random((60, 30)) < 0.1).astype(float))
    ids = np.argsort(rng.random((60, 30)), axis=1)[:, :10]
    got = compute_metrics(ids, truth, range(1, 11), rng.random(30) + 1)
    assert all(0 <= value <= 100 for value in got.values())
    recall = [got[f"R@{k}"] for k in range(1, 11)]
    assert recall == sorted(recall) and recall[0] < recall[-1]
    labels = np.diff(truth.indptr)
    assert all(got[f"P@{k}"] <= 100 * np.minimum(labels, k).mean() / k for k in range(1, 11))


def test_the_truth_sorted_by_propensity_is_perfect() -> None:
    q = np.array([1.0, 4, 2, 3, 5])
    ids = [[1, 3, 0], [4, -1, -1], [-1, -1, -1]]
    got = compute_metrics(ids, csr([{0, 1, 3}, {4}, {}], 5), (1, 2, 3), q)
    assert [got[f"{name}@{k}"] for name in ("PSP", "PSnDCG") for k in (1, 2, 3)] == pytest.approx([100.0] * 6)


@pytest.mark.parametrize("block", [3, 8192])
@pytest.mark.parametrize("empty", ["count", "drop"])
def test_equals_the_plain_loops_on_random_cases(block: int, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", block)
    for seed in range(100):
        rng = np.random.default_rng([seed, block])
        L, N, K = int(rng.integers(5, 41)), int(rng.integers(1, 12)), int(rng.integers(1, 11))
        truths = [set(rng.choice(L, rng.integers(0, 6), replace=False).tolist()) for _ in range(N)]
        truths[0] |= {int(rng.integers(L))}
        filters = [set(rng.choice(L, rng.integers(0, 3), replace=False).tolist()) for _ in range(N)]
        filters = [f - t for f, t in zip(filters, truths, strict=True)]
        rows = [
            {int(label): int(rng.integers(4)) / 4 for label in rng.choice(L, rng.integers(0, L + 1), replace=False)}
            for _ in range(N)
        ]  # scores of four values: most of them tie
        q = inverse_propensity(rng.integers(0, 50, L), 50, 0.55, 1.5)
        ks = tuple(sorted({1, min(K, L), int(rng.integers(1, min(K, L) + 1))}))
        expected = naive_metrics([list(row.items()) for row in rows], truths, q.tolist(), ks, filters, empty)
        ids, _ = rank_topk(*lists(rows, max(L, K)))
        got: dict[str, float] = {}
        for k in ks:
            options = (ks, q, csr(filters, L), (), k, empty, ("Hit", "PSR"))
            got |= compute_metrics(ids, csr(truths, L), *options)  # type: ignore[arg-type]
        assert got == pytest.approx(expected, abs=1e-10, rel=1e-12)


def test_true_pairs_that_are_filtered_do_not_count() -> None:
    with pytest.warns(UserWarning, match="1 true pairs are also filter pairs"):
        got = compute_metrics([[0, 1, 2]], csr([{0, 1}], 3), (1,), filters=csr([{0}], 3))
    assert (got["P@1"], got["R@1"]) == (100.0, 100.0)


def test_relevance_may_be_weighted_unsorted_and_hold_zeros_and_is_left_as_it_was() -> None:
    matrix = sparse.csr_array(
        (np.array([0.2, 0.0, 3.0, 1.0]), np.array([4, 1, 0, 0]), np.array([0, 2, 4])), shape=(2, 5)
    )
    got = compute_metrics([[4, 1], [0, 1]], matrix, (1, 2))
    assert (got["P@1"], got["P@2"], got["R@2"]) == (100.0, 50.0, 100.0)
    assert matrix.indices.tolist() == [4, 1, 0, 0] and matrix.data.tolist() == [0.2, 0.0, 3.0, 1.0]


def test_keys_follow_what_is_stored() -> None:
    truth = csr([{0}], 200)
    assert list(compute_metrics(np.arange(12)[None], truth, (1,))) == ["P@1", "nDCG@1", "RP@1", "R@1", "R@10", "MRR@10"]
    assert list(compute_metrics(np.arange(5)[None], truth, (1,))) == ["P@1", "nDCG@1", "RP@1", "R@1"]
    assert recall_depths(100) == (10, 50, 100) and recall_depths(350) == (10, 50, 100, 200, 300)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": (1, 9)}, "k=9 asked, but K=6"),
        ({"ks": (0,)}, "k=0"),
        ({"recall_ks": (100,)}, "k=100 asked, but K=6"),
        ({"mrr_k": 10}, "k=10 asked"),
        ({"inv_propensity": [1.0, 2.0]}, "6 positive numbers"),
        ({"inv_propensity": [1, 2, 3, 4, 5, float("nan")]}, "positive"),
        ({"empty": "skip"}, "'count'"),
        ({"extras": ("Hits",)}, "extras=Hits: choose from Hit, PSR"),
        ({"extras": ("PSR",)}, "PSR weighs labels"),
        ({"filters": csr([{0}] * 4, 7)}, r"filters have shape \(4, 7\)"),
        ({"relevance_csr": csr([{0}] * 3, 6)}, "4 rows, relevance 3"),
        ({"topk_ids": np.zeros((4, 6))}, "integer"),
        ({"topk_ids": np.array([[0, 1, 2], [3, 3, 4], [0, 1, 2], [0, 1, 2]]), "ks": (1,)}, "row 1 .* same id twice"),
        ({"topk_ids": np.full((4, 7), -1), "ks": (7,)}, "k=7 is more than the 6 labels"),
        ({"relevance_csr": csr([[]] * 4, 6), "empty": "drop"}, "no points to evaluate have labels"),
    ],
)
def test_bad_input_is_named(options: dict[str, object], message: str) -> None:
    e = e1()
    arguments = {"topk_ids": e.ids, "relevance_csr": e.truth} | options
    with pytest.raises(TopkError, match=message):
        compute_metrics(**arguments)  # type: ignore[arg-type]


def test_no_points_is_an_error_and_no_labels_at_all_is_zero() -> None:
    with pytest.raises(TopkError, match="no points"):
        compute_metrics(np.zeros((0, 5), dtype=np.int64), csr([], 5))
    got = compute_metrics([[0, 1]], csr([[]], 5), (1,), np.ones(5))
    assert set(got.values()) == {0.0}


def test_one_point_one_label() -> None:
    for ids, value in ([[0]], 100.0), ([[-1]], 0.0):
        got = compute_metrics(ids, csr([{0}], 1), (1,), [2.0], csr([{}], 1), (1,), 1, extras=("Hit", "PSR"))
        assert len(got) == 9 and set(got.values()) == {value}


def test_a_filter_without_pairs_changes_nothing() -> None:
    e = e1()
    without, with_none = (compute_metrics(e.ids, e.truth, (1, 5), e.q, filters=f) for f in (None, e.filters))
    assert without == with_none


def test_coverage_counts_labels_found_for_one_of_their_points() -> None:
    e = e2()
    ids, _ = apply_filters(e.ids, e.scores, e.filters, 5)
    assert coverage(ids, e.truth, (1, 3, 5)) == approx(table({"Coverage": (0.428571, 0.571429, 0.571429)}, (1, 3, 5)))
    assert coverage([[0, 1]], csr([{}], 5), (1,)) == {"Coverage@1": 0.0}


def test_upper_bounds_are_reached_by_the_truth() -> None:
    truth = csr([{0, 3, 4}, {1}, {}, {0, 1, 2, 3}], 5)
    ids = [[0, 3, 4], [1, -1, -1], [-1, -1, -1], [0, 1, 2]]
    got = compute_metrics(ids, truth, (1, 3))
    assert upper_bounds(truth, (1, 3)) == pytest.approx({name: got[name] for name in ("P@1", "P@3", "R@1", "R@3")})
