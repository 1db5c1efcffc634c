"""The vote of the nearest training points beside a loop over points, neighbours and labels."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dexml.evaluation import knn
from dexml.evaluation.knn import Vote, best, shares, votes
from dexml.evaluation.retrieval import Predictions

N, M, L, K = 23, 40, 17, 6  # queries, training points, labels, places


def lists(rng: np.random.Generator, width: int, k: int, short: bool = True) -> Predictions:
    """Random ranked lists over `width` items, scores rounded so that many are equal, some lists short."""
    ids = np.argsort(rng.random((N, width)), axis=1)[:, :k].astype(np.int64)
    scores = -np.sort(-rng.normal(size=(N, k)).round(1), axis=1).astype(np.float32)
    gone = np.arange(k) >= rng.integers(0, k + 1, N)[:, None] if short else np.zeros((N, k), bool)
    return Predictions(np.where(gone, -1, ids), np.where(gone, -np.inf, scores).astype(np.float32))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def relevance(rng: np.random.Generator) -> csr_matrix:
    return csr_matrix((rng.random((M, L)) < 0.2) * rng.uniform(0.5, 2, (M, L)), dtype=np.float32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BLOCK", 5)


def softmax(scores: list[float], tau: float) -> list[float]:
    raised = [math.exp((score - max(scores)) / tau) for score in scores]
    return [value / sum(raised) for value in raised]


def naive(
    vote: Vote, own: Predictions, near: Predictions, relevance: csr_matrix, barred: np.ndarray | None, row: int
) -> list[tuple[int, float]]:
    """(label, score) of one query, best first."""
    found: dict[int, float] = defaultdict(float)
    neighbours = [(i, float(s)) for i, s in zip(near.ids[row], near.scores[row], strict=True) if i >= 0][: vote.k]
    voted: dict[int, float] = defaultdict(float)
    for (point, _), weight in zip(neighbours, softmax([s for _, s in neighbours], vote.tau), strict=True):
        for label in relevance[int(point)].indices:
            if barred is None or not barred[row, label]:
                voted[int(label)] += weight
    for label, value in voted.items():
        found[label] += vote.weight * value / sum(voted.values())
    if vote.weight < 1:
        candidates = [(int(i), float(s)) for i, s in zip(own.ids[row], own.scores[row], strict=True) if i >= 0]
        for (label, _), share in zip(candidates, softmax([s for _, s in candidates], vote.label_tau), strict=True):
            found[label] += (1 - vote.weight) * share
    return sorted(found.items(), key=lambda item: (-round(item[1], 12), item[0]))


@pytest.mark.parametrize("barred", [False, True], ids=["", "filters"])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_vote_and_mixture_are_those_of_a_loop(
    rng: np.random.Generator,
    relevance: csr_matrix,
    monkeypatch: pytest.MonkeyPatch,
    k: int,
    weight: float,
    barred: bool,
) -> None:
    monkeypatch.setattr(knn, "BLOCK", 5)
    own, near = lists(rng, L, K), lists(rng, M, 8)
    cells = rng.random((N, L)) < 0.3 if barred else None
    vote = Vote(k, weight, tau=0.3, label_tau=0.5)
    found = vote.predict(own, near, relevance, K, None if cells is None else csr_matrix(cells))
    for row in range(N):
        expected = naive(vote, own, near, relevance, cells, row)[:K]
        real = found.ids[row] >= 0
        assert found.ids[row][real].tolist() == [label for label, _ in expected]
        assert found.scores[row][real] == pytest.approx([score for _, score in expected], rel=1e-6)
        assert not real[len(expected) :].any() and (found.scores[row][~real] == -np.inf).all()


def test_both_sides_are_distributions_over_labels(rng: np.random.Generator, relevance: csr_matrix) -> None:
    near = lists(rng, M, 8, short=False)
    np.testing.assert_allclose(votes(near, relevance, 0.05).sum(axis=1), 1)
    np.testing.assert_allclose(shares(near, 0.05, M).sum(axis=1), 1)


def test_probabilities_are_shared_as_they_are() -> None:
    own = Predictions(np.array([[2, 0, -1], [1, 0, 2], [-1, -1, -1]]), np.full((3, 3), -np.inf, np.float32))
    own.scores[0, :2], own.scores[1] = (0.6, 0.2), (0.5, 0.5, 0)
    found = shares(own, None, 3)
    np.testing.assert_allclose(found.toarray(), [[0.25, 0, 0.75], [0.5, 0.5, 0], [0, 0, 0]], rtol=1e-6, atol=1e-300)
    assert found.data.min() > 0


def test_labels_keep_their_order_where_the_vote_weighs_next_to_nothing(
    rng: np.random.Generator, relevance: csr_matrix
) -> None:
    own, near = lists(rng, L, K, short=False), lists(rng, M, 8)
    own = Predictions(own.ids, np.broadcast_to(np.linspace(1, -1, K, dtype=np.float32), own.ids.shape))
    assert np.array_equal(Vote(3, 1e-30, 0.05, 0.05).predict(own, near, relevance, K).ids, own.ids)
    lowest = shares(own, 0.001, L).data.min()  # e^-2000 of the highest: too little for a float, but still a candidate
    assert lowest > 0


def test_equal_scores_go_to_the_smaller_id_at_the_cut_too() -> None:
    scores = csr_matrix([[0.2, 0.5, 0.2, 0.5, 0.2], [0, 0, 0, 0, 1]])
    found = best(scores, 3)  # type: ignore[arg-type]
    assert found.ids.tolist() == [[1, 3, 0], [4, -1, -1]]


def test_a_query_without_neighbours_or_votes_keeps_its_labels(relevance: csr_matrix) -> None:
    none = Predictions(np.full((1, 2), -1, np.int64), np.full((1, 2), -np.inf, np.float32))
    own = Predictions(np.array([[4, 2]]), np.array([[0.9, 0.1]], np.float32))
    assert Vote(2, 1.0, 0.05, 0.05).predict(own, none, relevance, 2).ids.tolist() == [[-1, -1]]
    assert Vote(2, 0.5, 0.05, 0.05).predict(own, none, relevance, 2).ids.tolist() == [[4, 2]]


def test_no_queries_give_no_lists(relevance: csr_matrix) -> None:
    empty = Predictions(np.empty((0, 4), np.int64), np.empty((0, 4), np.float32))
    assert Vote(2, 0.5, 0.05, 0.05).predict(empty, empty, relevance, 4).ids.shape == (0, 4)
