"""Positives: construction, roles, and the errors of entries that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dexml.losses import KEPT, MASKED, REMOVED, LossSum, Positives, TopK


def test_defaults_keep_every_entry_with_relevance_one():
    p = Positives.from_csr(np.array([0, 2, 2, 3]), np.array([4, 1, 0]))
    assert p.rows.tolist() == [0, 0, 2]
    assert p.cols.tolist() == [4, 1, 0]
    assert p.role.tolist() == [KEPT] * 3 and p.role.dtype == torch.int8
    assert p.n_kept.tolist() == [2, 0, 1]
    assert p.relevance(weighted=True).tolist() == [1.0, 1.0, 1.0]


def test_only_kept_entries_are_counted_and_relevant():
    p = Positives.from_csr([0, 3], [0, 1, 2], weights=[0.5, 2.0, 3.0], role=[KEPT, REMOVED, MASKED])
    assert p.n_kept.tolist() == [1]
    assert p.relevance(weighted=True).tolist() == [0.5, 0.0, 0.0]
    assert p.relevance(weighted=False).tolist() == [1.0, 0.0, 0.0]


def test_a_cell_named_twice_counts_once_and_the_strictest_role_wins():
    p = Positives.from_csr([0, 4, 5], [3, 1, 3, 1, 3], role=[KEPT, MASKED, KEPT, KEPT, REMOVED])
    assert p.indptr.tolist() == [0, 2, 3]
    assert sorted(zip(p.cols.tolist(), p.role.tolist(), strict=True)) == [(1, MASKED), (3, KEPT), (3, REMOVED)]
    assert p.n_kept.tolist() == [1, 0]
    p.validate(4)


def test_no_entries_at_all_are_counted_but_nothing_to_learn_from():
    p = Positives.from_csr([0, 0, 0], [])
    assert p.n_kept.tolist() == [0, 0]
    with pytest.raises(ValueError, match="positives: no query has a kept positive"):
        p.validate(0)
    # the entries lie on another shard
    Positives.from_csr([0, 0, 0], [], n_kept=[0, 1]).validate(0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cols": [0, 5]}, r"positives\.cols: 0\.\.5 reaches outside the 5 labels of this shard"),
        ({"cols": [-1, 3]}, r"positives\.cols: -1\.\.3 reaches outside"),
        ({"cols": [2, 2]}, r"positives\.cols: 1 cells are named twice"),
        ({"indptr": [0, 1]}, r"positives\.indptr: must rise from 0 to 2"),
        ({"role": [0, 3]}, r"positives\.role: only 0"),
    ],
)
def test_validate_names_what_is_wrong(change, message):
    parts = {"indptr": [0, 2], "cols": [0, 1], "weights": [1.0, 1.0], "role": [0, 0], "n_kept": [2]} | change
    p = Positives(**{name: torch.tensor(value) for name, value in parts.items()})
    with pytest.raises(ValueError, match=message):
        p.validate(5)


def test_shapes_that_disagree_are_refused_at_once():
    with pytest.raises(ValueError, match="2 cols, 1 weights and 2 roles"):
        Positives.from_csr([0, 2], [0, 1], role=[0, 0]).__class__(
            torch.tensor([0, 2]), torch.tensor([0, 1]), torch.ones(1), torch.zeros(2), torch.tensor([2])
        )
    with pytest.raises(ValueError, match="ends at 3 but there are 2 cols"):
        Positives.from_csr([0, 3], [0, 1])


def test_mean_divides_by_the_global_count():
    assert float(LossSum(torch.tensor(6.0), 4).mean) == 1.5


@pytest.mark.parametrize("wrong", [{"k": 0}, {"alpha": 0.0}, {"cdf": "normal"}, {"solver": "newton"}, {"max_iter": 0}])
def test_topk_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=rf"topk\.{next(iter(wrong))}"):
        TopK(**wrong)


def test_a_k_for_each_row_may_be_zero_only_without_kept_positives():
    p = Positives.from_csr([0, 2, 2], [0, 1])
    assert TopK(torch.tensor([2, 0])).per_row(p).tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"topk\.k: must be at least 1 in rows with positives, got 0"):
        TopK(torch.tensor([0, 3])).per_row(p)
    with pytest.raises(ValueError, match=r"topk\.k: 3 values for 2 rows"):
        TopK(torch.tensor([1, 1, 1])).per_row(p)
