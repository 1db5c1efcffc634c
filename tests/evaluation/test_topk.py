"""The contract of ranked lists: validation, one row a point, filters."""

import numpy as np
import pytest

from dexml.evaluation import (
    TopkError,
    apply_filters,
    compute_metrics,
    filter_overfetch,
    one_row_per_point,
    validate_topk,
)
from dexml.index import exact_topk
from tests.evaluation.examples import csr, e1, e2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 5, -1], r"row 1 .* outside 0\.\.4"),
        ([0, -2, -1], "row 1 .* outside"),
        ([3, 0, 3], "row 1 .* same id twice"),
        ([-1, 0, 3], "row 1 .* -1 in front"),
        ([0, -1, 3], "row 1 .* -1 in front"),
    ],
)
def test_a_broken_list_is_named_by_its_row(row: list[int], message: str) -> None:
    with pytest.raises(TopkError, match=message):
        validate_topk([[0, 1, 2], row], 5)


def test_nan_scores_are_refused_and_padding_is_fine() -> None:
    ids = [[0, 1], [2, -1], [-1, -1]]
    scores = np.array([[0.5, 0.1], [0.0, -np.inf], [-np.inf, -np.inf]])
    validate_topk(ids, 3, scores)
    scores[1, 0] = np.nan
    with pytest.raises(TopkError, match=r"row 1 .* NaN"):
        validate_topk(ids, 3, scores)
    with pytest.raises(TopkError, match="shape"):
        validate_topk(ids, 3, scores[:, :1])


def test_points_of_two_ranks_with_a_padding_copy_give_the_same_metrics() -> None:
    e = e1()
    gathered = [0, 2, 1, 3, 0]
    ids, scores = one_row_per_point(gathered, e.ids[gathered], e.scores[gathered], 4)
    assert np.array_equal(ids, e.ids) and np.array_equal(scores, e.scores)
    assert compute_metrics(ids, e.truth, (3,))["P@3"] == pytest.approx(41.6667, abs=1e-4)


def test_missing_foreign_or_contradicting_points_are_refused() -> None:
    e = e1()
    with pytest.raises(TopkError, match="1 of 4 points have no prediction, first: point 3"):
        one_row_per_point([0, 1, 2], e.ids[:3], e.scores[:3], 4)
    with pytest.raises(TopkError, match=r"outside 0\.\.3"):
        one_row_per_point([0, 1, 2, 4], e.ids, e.scores, 4)
    with pytest.raises(TopkError, match="point 2 has two different"):
        one_row_per_point([0, 1, 2, 3, 2], e.ids[[0, 1, 2, 3, 0]], e.scores[[0, 1, 2, 3, 0]], 4)


def test_filtered_cells_leave_and_the_list_moves_up() -> None:
    e = e2()
    ids, scores = apply_filters(e.ids, e.scores, e.filters, 3)
    assert ids.tolist() == [[0, 3, 5], [1, 2, -1], [0, -1, -1], [6, -1, -1], [-1, -1, -1]]
    assert scores[1].tolist() == pytest.approx([0.9, 0.1, -np.inf])
    assert e.ids[1, 0] == 4, "the input must stay as it was"


def test_predictions_hold_no_filtered_cell_and_still_k_labels() -> None:
    rng = np.random.default_rng(0)
    filters = csr([rng.choice(40, rng.integers(0, 6), replace=False) for _ in range(50)], 40)
    k, extra = 7, filter_overfetch(filters)
    assert extra == 5
    query_ND, label_LD = rng.standard_normal((50, 8)), rng.standard_normal((40, 8))
    ids, scores = apply_filters(*exact_topk(query_ND, label_LD, k + extra), filters, k)
    allowed = np.where(filters.toarray() > 0, -np.inf, query_ND @ label_LD.T)
    assert np.array_equal(ids, np.argsort(-allowed, axis=1)[:, :k])
    assert np.isfinite(scores).all()


def test_lists_cut_too_early_are_reported() -> None:
    filters = csr([{1}, {}], 9)
    with pytest.warns(UserWarning, match="1 lists with fewer than k=2"):
        ids, _ = apply_filters([[1, 2], [3, 4]], [[0.5, 0.4]] * 2, filters, 2)
    assert ids.tolist() == [[2, -1], [3, 4]]


def test_filters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TopkError, match="2 rows, filters 1"):
        apply_filters([[1], [2]], [[0.5], [0.5]], csr([{1}], 9), 1)
    with pytest.raises(TopkError, match="label 9 is beyond the 9 labels"):
        apply_filters([[9]], [[0.5]], csr([{1}], 9), 1)
    with pytest.raises(TopkError, match="k=2 but only K=1"):
        apply_filters([[1]], [[0.5]], csr([{1}], 9), 2)
