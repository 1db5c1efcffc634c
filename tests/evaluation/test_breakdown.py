import numpy as np
import pytest
from scipy import sparse

from dexml.evaluation import (
    TopkError,
    apply_filters,
    by_frequency,
    by_head,
    by_points,
    compute_metrics,
    inverse_propensity,
    restricted,
    upper_bounds,
)
from dexml.evaluation.breakdown import LabelGroup, head_groups, mass_bins
from tests.evaluation.examples import csr, e2
from tests.helpers.datasets import real_data

COUNTS = [40, 25, 12, 8, 5, 3, 1, 0]  # training points of the labels of E2


def e2_lists() -> tuple[np.ndarray, sparse.csr_array]:
    e = e2()
    return apply_filters(e.ids, e.scores, e.filters, 5)[0], e.truth


def contributions(groups: list[LabelGroup], k: int) -> list[float]:
    return [group.contribution[k] for group in groups]


# ---- groups of labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bins", "wanted"), [(4, [1, 2, 3, 4, 4, 4, 4, 5]), (10, [1, 5, 7, 9, 10, 10, 10, 11]), (1, [1] * 7 + [2])]
)
def test_bins_hold_equal_training_mass(bins: int, wanted: list[int]) -> None:
    assert (mass_bins(COUNTS, bins) + 1).tolist() == wanted  # the last one: unseen


def test_labels_of_one_frequency_are_binned_by_id() -> None:
    assert mass_bins([1, 1, 1, 1, 0], 2).tolist() == [0, 0, 1, 1, 2]
    assert mass_bins([0, 0], 3).tolist() == [3, 3]


def test_worked_example_by_frequency() -> None:
    ids, truth = e2_lists()
    groups = by_frequency(ids, truth, COUNTS, (1, 3, 5), bins=4)
    assert [group.name for group in groups] == ["bin 1", "bin 2", "bin 3", "bin 4", "unseen"]
    assert [group.labels for group in groups] == [1, 1, 1, 4, 1]
    assert [group.mean_frequency for group in groups] == [40, 25, 12, 4.25, 0]
    assert [group.positives for group in groups] == [1, 1, 1, 4, 1]
    assert contributions(groups, 1) == pytest.approx([20, 20, 0, 20, 0])
    assert contributions(groups, 3) == pytest.approx([6.66667, 6.66667, 0, 13.33333, 0], abs=1e-5)
    assert contributions(groups, 5) == pytest.approx([4, 4, 0, 8, 0])


def test_worked_example_head_torso_tail() -> None:
    ids, truth = e2_lists()
    groups = by_head(ids, truth, COUNTS, (1, 3))
    assert [group.name for group in groups] == ["head (50+)", "torso (10-49)", "tail (1-9)", "unseen"]
    assert [group.labels for group in groups] == [0, 3, 4, 1]
    assert contributions(groups, 1) == pytest.approx([0, 40, 20, 0])
    assert [group.recall[1] for group in groups] == pytest.approx([0, 200 / 3, 25, 0])
    assert [group.recall[3] for group in groups] == pytest.approx([0, 200 / 3, 50, 0])
    groups = by_head(ids, truth, COUNTS, (3,), (20, 5))
    assert [group.labels for group in groups] == [2, 3, 2, 1]
    assert [group.recall[3] for group in groups] == pytest.approx([100, 50, 100 / 3, 0])


def test_contributions_and_recall_add_up_on_random_data() -> None:
    rng = np.random.default_rng(0)
    truth = sparse.csr_array((rng.random((60, 40)) < 0.1).astype(float))
    ids = np.argsort(rng.random((60, 40)), axis=1)[:, :8]
    counts = rng.integers(0, 80, 40) * (rng.random(40) < 0.8)
    whole = compute_metrics(ids, truth, (1, 5))
    for groups in (by_frequency(ids, truth, counts, (1, 5)), by_head(ids, truth, counts, (1, 5))):
        for k in (1, 5):
            assert sum(contributions(groups, k)) == pytest.approx(whole[f"P@{k}"], abs=1e-9)
            hits = sum(group.recall[k] * group.positives / 100 for group in groups)
            assert hits == pytest.approx(whole[f"P@{k}"] * k * 60 / 100, abs=1e-9)
        assert sum(group.labels for group in groups) == 40
        assert sum(group.positives for group in groups) == truth.nnz


def test_thresholds_may_be_any_falling_numbers() -> None:
    group_L, names = head_groups([0, 1, 2, 3, 9, 10, 99], (10, 3, 2))
    assert names == ["head (10+)", "torso (3-9)", "torso (2)", "tail (1)", "unseen"]
    assert group_L.tolist() == [4, 3, 2, 1, 1, 0, 0]
    for wrong in ((10, 50), (50, 1), (), (0,)):
        with pytest.raises(TopkError, match="falling numbers"):
            head_groups([1], wrong)


def test_counts_that_do_not_fit_are_refused() -> None:
    truth = csr([{0}], 3)
    with pytest.raises(TopkError, match="of 2 labels, relevance has 3"):
        by_head([[0]], truth, [1, 2], (1,))
    with pytest.raises(TopkError, match="of 2 labels, relevance has 3"):
        restricted([[0]], truth, [1, 2], (1,))
    with pytest.raises(TopkError, match="whole number"):
        by_frequency([[0]], truth, [0.5, 1, 2], (1,))
    with pytest.raises(TopkError, match="bins=0"):
        by_frequency([[0]], truth, [1, 1, 2], (1,), bins=0)


# ---- groups of points -----------------------------------------------------------------------------------------------


def test_worked_example_restricted_to_a_group() -> None:
    ids, truth = e2_lists()
    groups = restricted(ids, truth, COUNTS, (1,), (20, 5))
    assert [group.points for group in groups] == [2, 2, 2, 1]
    for name in ("P@1", "nDCG@1"):
        assert [group.metrics[name] for group in groups] == [100, 50, 50, 0]
    few = restricted(ids, truth, COUNTS, (1,))
    assert [(group.name, group.points) for group in few] == [("head (50+)", 0), ("tail (1-49)", 4), ("unseen", 1)]
    assert few[0].metrics == {}


def test_restricting_whole_lists_ranks_the_group_alone() -> None:
    rng = np.random.default_rng(1)
    truth = sparse.csr_array((rng.random((30, 20)) < 0.2).astype(float))
    ids = np.argsort(rng.random((30, 20)), axis=1)
    counts = np.array([60] * 8 + [5] * 12)
    head = restricted(ids, truth, counts, (1, 5))[0]
    alone = np.array([[label for label in row if label < 8] for row in ids])
    touched = truth[:, :8].sum(axis=1) > 0
    wanted = compute_metrics(alone[touched], truth[touched][:, :8], (1, 5))
    assert head.points == touched.sum()
    assert {name: head.metrics[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


def test_points_are_grouped_by_edges_and_by_quantiles() -> None:
    rng = np.random.default_rng(2)
    truth = sparse.csr_array((rng.random((90, 20)) < 0.15).astype(float))
    ids, q = np.argsort(rng.random((90, 20)), axis=1)[:, :6], rng.random(20) + 1
    positives = np.diff(truth.indptr)
    groups = by_points(ids, truth, positives, (1, 2, 4), (1, 3), q)
    assert [group.name for group in groups] == ["0", "1", "2 to 3", f"4 to {positives.max()}"]
    for group, low, high in zip(groups, (0, 1, 2, 4), (1, 2, 4, 99), strict=True):
        some = (positives >= low) & (positives < high)
        assert group.points == some.sum()
        assert group.metrics == pytest.approx(compute_metrics(ids[some], truth[some], (1, 3), q), abs=1e-9)
    lengths = rng.permutation(90)
    assert [(group.name, group.points) for group in by_points(ids, truth, lengths, 3)] == [
        ("0 to 29", 30), ("30 to 59", 30), ("60 to 89", 30)
    ]  # fmt: skip
    assert [group.name for group in by_points(ids, truth, np.full(90, 7), 4)] == ["7"]
    assert by_points(ids, truth, lengths, 1)[0].metrics == pytest.approx(compute_metrics(ids, truth), abs=1e-9)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TopkError, match=r"must be 1 numbers, one a point"):
        by_points([[0]], csr([{0}], 2), [1, 2], ks=(1,))
    with pytest.raises(TopkError, match="ascending"):
        by_points([[0]], csr([{0}], 2), [1], (3, 2), ks=(1,))


# ---- a real data set ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eurlex(tmp_path_factory: pytest.TempPathFactory) -> tuple[sparse.csr_array, np.ndarray]:
    """The official test truth, which the set of titles shares, and the training counts of the labels."""
    folder = real_data("EURLEX57K-Titles", tmp_path_factory.mktemp("data"))
    if folder is None:
        pytest.skip("EURLEX57K-Titles is not there: set DEXML_DATA to the folder that holds it or its archive")
    test, training = (sparse.csr_array(sparse.load_npz(folder / f"Y.{name}.npz")) for name in ("tst", "trn"))
    return test, np.bincount(training.indices, minlength=4271)


def test_eurlex57k_groups_have_the_published_sizes(eurlex: tuple[sparse.csr_array, np.ndarray]) -> None:
    truth, counts = eurlex
    ids = np.zeros((truth.shape[0], 1), np.int64)
    assert (truth.shape, counts.sum(), truth.nnz) == ((6000, 4271), 228_322, 30_356)
    groups = by_head(ids, truth, counts, (1,))
    assert [group.labels for group in groups] == [746, 1095, 2267, 163]
    assert [group.positives for group in groups] == [26_063, 3_177, 1_020, 96]
    assert [round(group.labels * group.mean_frequency) for group in groups] == [196_423, 24_139, 7_760, 0]
    assert [group.points for group in restricted(ids, truth, counts, (1,), (50, 10))] == [5_956, 2_055, 775, 89]
    few = by_head(ids, truth, counts, (1,), (50,))[1]
    assert (few.labels, few.positives, round(few.labels * few.mean_frequency)) == (3_362, 4_197, 31_899)
    assert restricted(ids, truth, counts, (1,), (50,))[1].points == 2_338
    deciles = by_frequency(ids, truth, counts, (1,))
    assert [group.labels for group in deciles] == [8, 14, 23, 32, 47, 73, 121, 212, 453, 3_125, 163]


def test_eurlex57k_bounds_and_propensities(eurlex: tuple[sparse.csr_array, np.ndarray]) -> None:
    truth, counts = eurlex
    bounds = upper_bounds(truth, (1, 3, 5, 10, 15))
    wanted = {"P": (1, 0.977833, 0.874033, 0.5048, 0.3372), "R": (0.228892, 0.646260, 0.903517, 0.999180, 0.999926)}
    for name, values in wanted.items():
        got = [bounds[f"{name}@{k}"] / 100 for k in (1, 3, 5, 10, 15)]
        assert got == pytest.approx(values, abs=1e-6)
    for constants, least in (((0.55, 1.5), 1.176706), ((0.5, 0.4), 1.190374), ((0.6, 2.6), 1.152754)):
        assert inverse_propensity(counts, 45_000, *constants).min() == pytest.approx(least, abs=1e-6)
    q = inverse_propensity(counts, 45_000, 0.55, 1.5)
    assert (q[counts == 0][0], q[counts == 1][0]) == pytest.approx((13.865705, 10.714418), abs=1e-6)
