"""Hits found in lists, and those of the ideal lists."""

import numpy as np
import pytest
from scipy import sparse

from dexml.evaluation import topk
from dexml.evaluation.gains import Hits
from tests.evaluation.examples import csr


def random_lists(seed: int) -> tuple[sparse.csr_array, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = sparse.csr_array((rng.random((23, 40)) < 0.15).astype(float))
    ids = np.argsort(rng.random((23, 40)), axis=1)[:, :7]
    ids[rng.random(23) < 0.3, 4:] = -1
    return truth, ids


@pytest.mark.parametrize("compared", [1, 20, 1 << 18])
def test_hits_are_the_true_cells_of_the_lists(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "_COMPARED", compared)
    truth, ids = random_lists(compared)
    dense, rows = truth.toarray() > 0, slice(5, 19)
    hits = Hits.of(truth, rows, ids[rows])
    wanted = {
        (row - 5, place, int(label))
        for row in range(5, 19)
        for place, label in enumerate(ids[row])
        if label >= 0 and dense[row, label]
    }
    assert set(zip(hits.row.tolist(), hits.place.tolist(), hits.label.tolist(), strict=True)) == wanted
    assert len(hits.row) == len(wanted)
    assert (np.diff(hits.place) >= 0).all()
    assert hits.true_n.tolist() == dense[rows].sum(axis=1).tolist()


def test_sums_and_first_places_per_point() -> None:
    hits = Hits.of(csr([{0, 2}, {}, {1}], 4), slice(0, 3), np.array([[2, 3, 0], [0, 1, 2], [0, 1, -1]]))
    assert [hits.summed(k).tolist() for k in (1, 2, 3)] == [[1, 0, 0], [1, 0, 1], [2, 0, 1]]
    assert hits.first().tolist() == [0, np.inf, 1]
    assert hits.summed(3, np.arange(1.0, 4.0)).sum() == 6


def test_ideal_hits_are_the_heaviest_true_labels_in_order() -> None:
    truth, _ = random_lists(3)
    weights = np.random.default_rng(4).integers(1, 6, 40).astype(float)  # many weigh the same
    hits = Hits.ideal(truth, slice(2, 20), weights, 4)
    for row in range(18):
        mine = hits.row == row
        best = np.sort(weights[truth[[row + 2]].indices])[::-1][:4]
        assert weights[hits.label[mine]].tolist() == best.tolist()
        assert hits.place[mine].tolist() == list(range(len(best)))
        assert set(hits.label[mine]) <= set(truth[[row + 2]].indices)


def test_no_hits_at_all() -> None:
    truth = csr([{}, {}], 3)
    for hits in (
        Hits.of(truth, slice(0, 2), np.zeros((2, 1), np.int64)),
        Hits.ideal(truth, slice(0, 2), np.ones(3), 2),
    ):
        assert hits.summed(1).tolist() == [0, 0] and np.isinf(hits.first()).all()
