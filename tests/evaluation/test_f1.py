import numpy as np
import pytest
from scipy import sparse

from dexml.evaluation import TopkError, apply_filters, count_above, count_first
from tests.evaluation.examples import csr, e1, e2


def test_worked_example_at_a_threshold() -> None:
    e = e1()
    counts = count_above(e.ids, e.scores, e.truth)
    assert counts.hits.tolist() == [1, 1, 1, 1, 0, 0]
    assert (counts.predicted - counts.hits).tolist() == [0, 1, 0, 0, 1, 1]
    assert (counts.true - counts.hits).tolist() == [1, 1, 1, 0, 0, 0]
    assert counts.f1.tolist() == pytest.approx([0.666667, 0.5, 0.666667, 1, 0, 0], abs=1e-6)
    wanted = {"Micro-F1": 57.1429, "Macro-F1": 47.2222, "macro_f1_labels": 6}
    assert counts.metrics() == pytest.approx(wanted, abs=1e-4)
    wanted |= {"Macro-F1 (test labels)": 70.8333, "Another-Macro-F1": 48.6111}
    assert counts.metrics(test_labels=True, another=True) == pytest.approx(wanted, abs=1e-4)


def test_a_score_equal_to_the_threshold_is_not_above_it() -> None:
    e = e1()
    inclusive = count_above(e.ids, e.scores, e.truth, np.nextafter(np.float32(0.5), np.float32(0)))
    wanted = {"Micro-F1": 53.3333, "Macro-F1": 44.4444, "Another-Macro-F1": 45.4545, "macro_f1_labels": 6}
    assert inclusive.metrics(another=True) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("cut", "micro", "macro"), [(1, 50, 29.1667), (3, 53.3333, 41.6667), (0.4, 50, 33.3333), (0.5, 54.5455, 37.5)]
)
def test_worked_example_with_filter_and_short_lists(cut: float, micro: float, macro: float) -> None:
    e = e2()
    ids, scores = apply_filters(e.ids, e.scores, e.filters, 5)
    counts = count_first(ids, e.truth, cut) if isinstance(cut, int) else count_above(ids, scores, e.truth, cut)
    assert counts.metrics() == pytest.approx({"Micro-F1": micro, "Macro-F1": macro, "macro_f1_labels": 8}, abs=1e-4)


def test_lists_that_end_above_the_threshold_are_counted_and_told() -> None:
    ids, scores = [[0, 1], [2, 1], [3, -1]], [[0.9, 0.8], [0.9, 0.5], [0.9, -np.inf]]
    truth = csr([{0}, {1}, {2}], 4)
    with pytest.warns(UserWarning, match=r"1 of 3 lists of 2 labels end above the threshold 0\.5"):
        assert count_above(ids, scores, truth).truncated == 1
    whole = count_above([[0, 1], [1, 0], [1, -1]], scores, csr([{0}, {1}, {}], 2))  # no label is beyond these lists
    assert whole.truncated == 0


def test_nothing_predicted_and_nothing_true_is_zero() -> None:
    got = count_first([[-1]], csr([{}], 3), 1).metrics(test_labels=True, another=True)
    assert set(got.values()) == {0.0, 3}


def test_equals_the_dense_definitions_on_random_sets() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((50, 20)) < 0.2
    ids = np.argsort(rng.random((50, 20)), axis=1)[:, :4]
    predicted = np.zeros_like(true)
    np.put_along_axis(predicted, ids, True, axis=1)
    counts = count_first(ids, sparse.csr_array(true.astype(float)), 4)
    for label in range(20):
        hits = int((true & predicted)[:, label].sum())
        wanted = 2 * hits / (2 * hits + int((true ^ predicted)[:, label].sum()))
        assert counts.f1[label] == pytest.approx(wanted, abs=1e-12)
    micro = 2 * (true & predicted).sum() / (true.sum() + predicted.sum())
    assert counts.metrics()["Micro-F1"] == pytest.approx(100 * micro, abs=1e-12)


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TopkError, match="one for each"):
        count_above([[0, 1]], [[0.5]], csr([{0}], 2))
    with pytest.raises(TopkError, match="must be numbers"):
        count_above([[0, 1]], [[0.5, np.nan]], csr([{0}], 2))
