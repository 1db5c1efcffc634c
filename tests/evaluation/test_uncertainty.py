"""The decomposition against worked examples and the definition; what lists that end early leave out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.evaluation.uncertainty import Uncertainty, UncertaintyError, decompose, entropy, omitted_bound
from dexml.evaluation.uncertainty_texts import Listed, Mode, Readings, own_or_zero, read, union
from dexml.heads.tree_search import Found, TreeSearch
from tests.heads.trees import T

CASES = {
    (0.9, 0.1): (0.5, 0.693147, 0.325083, 0.368064),
    (0.8, 0.6): (0.7, 0.610864, 0.586707, 0.024157),
    (0.7, 0.7): (0.7, 0.610864, 0.610864, 0),
    (1.0, 0.0): (0.5, 0.693147, 0, 0.693147),
    (0.0, 0.0): (0, 0, 0, 0),
    (0.9, 0.5, 0.1): (0.5, 0.693147, 0.447771, 0.245376),
    (0.4, 0.1): (0.25, 0.562335, 0.499047, 0.063288),
    (0.4, 0.0): (0.2, 0.500402, 0.336506, 0.163897),
}


def numbers(u: Uncertainty) -> tuple[Any, ...]:
    return u.mean, u.total, u.data, u.knowledge


@pytest.mark.parametrize("p", list(CASES))
def test_worked_examples_of_a_label(p: tuple[float, ...]) -> None:
    assert [float(x) for x in numbers(decompose(np.array(p)))] == pytest.approx(CASES[p], abs=1e-6)


def test_knowledge_is_between_nothing_and_the_total_on_ten_thousand_draws() -> None:
    rng = np.random.default_rng(0)
    for members in range(2, 9):
        p = rng.random((members, 10_000 // 7 + 1)) ** rng.integers(1, 9)
        u = decompose(p)
        assert (u.knowledge >= 0).all() and (u.knowledge <= u.total).all()
        assert (u.total <= math.log(2) + 1e-12).all() and (u.knowledge <= math.log(members)).all()
        same = decompose(np.repeat(p[:1], members, axis=0))
        assert np.abs(same.knowledge).max() < 1e-12


def test_entropy_by_its_definition() -> None:
    for p in (1e-300, 1e-9, 0.3, 0.5, 1 - 1e-9):
        assert float(entropy(p)) == pytest.approx(-p * math.log(p) - (1 - p) * math.log1p(-p), rel=1e-12)
    assert entropy([0, 1]).tolist() == [0, 0]


@pytest.mark.parametrize("p", [[[1.2]], [[-0.1]], [[np.nan]], []])
def test_what_is_no_probability_is_refused(p: list[list[float]]) -> None:
    with pytest.raises(UncertaintyError, match="numbers from 0 to 1"):
        decompose(np.array(p))


# ---- labels that are left out ---------------------------------------------------------------------------------------

FOUR = np.array([[0.9, 0.4, 0.05, 0.01], [0.7, 0.1, 0.02, 0.01]])


def test_what_is_left_out_stays_below_the_bound() -> None:
    whole, some = decompose(FOUR).of_texts(), decompose(FOUR[:, :2]).of_texts()
    assert [float(x) for x in numbers(whole)[1:]] == pytest.approx([1.270454, 1.171300, 0.099154], abs=1e-6)
    assert [float(x) for x in numbers(some)[1:]] == pytest.approx([1.062738, 0.967021, 0.095717], abs=1e-6)
    assert float(whole.total - some.total) == pytest.approx(0.207716, abs=1e-6)
    assert float(omitted_bound(2, 0.035, 0.045)) == pytest.approx(0.215231, abs=1e-6)
    assert float(omitted_bound(2, 0.035, 1.0)) == pytest.approx(0.303429, abs=1e-6)


def test_not_found_is_not_nothing() -> None:
    zero = decompose(np.array([[0.9, 0.4], [0.7, 0.0]])).of_texts()
    assert [float(x) for x in numbers(zero)[1:]] == pytest.approx([1.000805, 0.804479, 0.196325], abs=1e-6)


def test_bounds_hold_for_random_ensembles() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        p = rng.random((3, 20)) ** rng.integers(1, 12)
        kept = np.argsort(-p.mean(axis=0))[: int(rng.integers(0, 20))]
        left = np.setdiff1d(np.arange(20), kept)
        mean = p.mean(axis=0)[left]
        bound = float(omitted_bound(len(left), mean.max(), mean.sum()))
        part = decompose(p[:, left]).of_texts()
        assert float(part.total) <= bound + 1e-9 and float(part.knowledge) <= bound + 1e-9


def test_a_bound_without_knowledge_is_one_bit_a_label() -> None:
    assert omitted_bound([3, 0], [1.0, 1.0], [3.0, 0.0]).tolist() == pytest.approx([3 * math.log(2), 0])


# ---- two trees ------------------------------------------------------------------------------------------------------


class Tree:
    """A member: the tree of the worked example with given conditionals."""

    def __init__(self, eta: Sequence[float], width: int) -> None:
        self.eta, self.width, self.search = torch.tensor(eta, dtype=torch.float64), width, TreeSearch(T)

    def conditionals(self, indptr: Tensor, nodes: Tensor) -> Tensor:
        return self.eta.log()[nodes]

    def encode(self, texts: Sequence[str]) -> int:
        return len(texts)

    def find(self, encoded: int, k: int) -> Listed:
        found: Found = self.search.beam(self.conditionals, encoded, k, self.width)
        ids, values = found.lists(k)
        bounds = (found.omitted_max.numpy(), found.omitted_mass.numpy())
        return Listed(ids.numpy(), values.exp().numpy(), *bounds)

    def score(self, encoded: int, ids: np.ndarray) -> np.ndarray:
        return self.search.log_marginals(self.conditionals, torch.from_numpy(ids)).exp().numpy()


A = (0.9, 0.8, 0.5, 0.5, 0.25, 0.9, 0.1)
B = (0.9, 0.4, 0.9, 0.5, 0.25, 0.9, 0.1)


def two_trees(mode: Mode, width: int = 1, k: int = 4) -> Readings:
    return read([Tree(A, width), Tree(B, width)], ["a", "b"], k, 4, mode)


def test_two_trees_that_miss_labels_are_asked_for_them() -> None:
    found = two_trees("complete")
    assert found.ids.tolist() == [[0, 1, 2, 3]] * 2
    u = found.of_labels
    assert u.total[0].tolist() == pytest.approx([0.583259, 0.395782, 0.684142, 0.235144], abs=1e-6)
    assert u.data[0].tolist() == pytest.approx([0.562406, 0.386966, 0.629619, 0.232363], abs=1e-6)
    assert u.knowledge[0].tolist() == pytest.approx([0.020853, 0.008817, 0.054523, 0.002781], abs=1e-6)
    text = u.of_texts()
    assert [float(x[0]) for x in numbers(text)[1:]] == pytest.approx([1.898327, 1.811353, 0.086973], abs=1e-6)
    assert np.take_along_axis(found.ids, found.ranked(), 1)[0].tolist() == [2, 0, 1, 3]
    assert np.sort(u.mean[0])[::-1].tolist() == pytest.approx([0.567, 0.27, 0.135, 0.063])
    assert found.bound.tolist() == [0, 0]


def test_two_trees_that_miss_labels_seem_to_disagree_with_zeros() -> None:
    found = two_trees("zero")
    assert found.of_labels.mean[0].tolist() == pytest.approx([0.18, 0.09, 0.3645, 0.0405])
    text = found.of_labels.of_texts()
    assert [float(x[0]) for x in numbers(text)[1:]] == pytest.approx([1.599425, 0.995134, 0.604291], abs=1e-6)


def test_the_certified_bound_of_an_ensemble_holds() -> None:
    found, whole = two_trees("complete", k=1), two_trees("complete", width=4)
    assert found.ids.tolist() == [[0, 2]] * 2 and found.counts.tolist() == [2, 2]
    missing = whole.of_labels.of_texts().total - found.of_labels.of_texts().total
    assert (missing <= found.bound).all() and (missing > 0).all()


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_unions_and_own_probabilities_by_hand() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        lists = [np.array([[*rng.permutation(9)[:n], *[-1] * (5 - n)] for n in rng.integers(0, 6, 4)]) for _ in "ab"]
        ids = union(lists)
        p = rng.random((4, 5))
        own = own_or_zero(ids, Listed(lists[0], p, np.zeros(4), np.zeros(4)))
        for row in range(4):
            wanted = sorted({int(i) for one in lists for i in one[row] if i >= 0})
            assert [i for i in ids[row].tolist() if i >= 0] == wanted and ids[row, len(wanted) :].max(initial=-1) == -1
            for label, value in zip(ids[row].tolist(), own[row].tolist(), strict=True):
                at = np.flatnonzero((lists[0][row] == label) & (label >= 0))
                assert value == (p[row, at[0]] if len(at) else 0)


def test_the_merge_of_lists_with_zeros() -> None:
    lists = [np.array([[1, 2]]), np.array([[2, 3]])]
    ids = union(lists)
    none = np.zeros(1)
    p = [
        own_or_zero(ids, Listed(one, np.array([v]), none, none))
        for one, v in zip(lists, ([0.9, 0.5], [0.6, 0.2]), strict=True)
    ]
    merged = dict(zip(ids[0].tolist(), np.sum(p, axis=0)[0].tolist(), strict=True))
    assert sorted(merged.items(), key=lambda item: -item[1]) == [(2, 1.1), (1, 0.9), (3, 0.2)]


def test_blocks_of_different_widths_join() -> None:
    one = two_trees("complete", k=1)
    joined = Readings.joined([one, two_trees("complete", k=1, width=4), two_trees("complete", k=1)])
    assert joined.ids.shape == (6, 2) and joined.best.shape == (2, 6, 1)
    np.testing.assert_allclose(joined.of_labels.total[:2], one.of_labels.total)
    whole = Readings.joined([one, replace(two_trees("complete"), best=one.best)])
    assert whole.ids[0].tolist() == [0, 2, -1, -1] and whole.of_labels.mean[0, 2:].tolist() == [0, 0]
