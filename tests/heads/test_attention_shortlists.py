"""What a text goes on with from level to level: the published rule, in numbers and in loops."""

from __future__ import annotations

import numpy as np
import pytest

from dexml.heads.features import Positives
from dexml.heads.shortlists import Below, kept_nodes, marks, parents_of, random_fill, renumbered
from dexml.heads.treebuild import balanced_tree, from_levels


def of(*rows: list[int]) -> Positives:
    return Positives(np.cumsum([0, *map(len, rows)]), np.array([i for row in rows for i in row], np.int64))


def naive(predicted: list[int], true: list[int], most: int) -> list[int]:
    if len(true) <= most:
        kept = true + [node for node in predicted if node >= 0 and node not in true]
    else:
        hits = [node for node in predicted if node in true]
        kept = hits + [node for node in true if node not in hits]
    return (kept + [-1] * most)[:most]


@pytest.mark.parametrize(
    ("most", "true", "predicted", "expected"),
    [
        (4, [2, 7], [1, 2, 3, 4, 5], [2, 7, 1, 3]),
        (3, [0, 1, 2, 3, 4], [9, 4, 8, 2], [4, 2, 0]),
        (3, [], [5, 6, 7], [5, 6, 7]),
        (4, [1], [3, 1, 0, 2], [1, 3, 0, 2]),
        (4, [1], [-1, -1, -1, -1], [1, -1, -1, -1]),
    ],
)
def test_the_rule_in_numbers(most: int, true: list[int], predicted: list[int], expected: list[int]) -> None:
    assert kept_nodes(np.array([predicted]), of(true), most).tolist() == [expected]


def test_the_rule_on_random_texts_keeps_every_true_node_that_fits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        most, n_nodes = int(rng.integers(1, 7)), 12
        true = [sorted(rng.choice(n_nodes, rng.integers(0, 9), replace=False).tolist()) for _ in range(20)]
        predicted = np.stack([rng.permutation(n_nodes)[: most + 1] for _ in true])
        predicted[rng.random(20) < 0.2, most // 2 :] = -1
        kept = kept_nodes(predicted, of(*true), most)
        for row, one, own in zip(kept, predicted, true, strict=True):
            assert row.tolist() == naive(one.tolist(), own, most)
            assert len(own) > most or set(own) <= set(row.tolist())


def test_every_positive_label_is_a_candidate_if_its_clusters_fit() -> None:
    rng = np.random.default_rng(1)
    tree = from_levels([np.arange(40) * 7 % 9])
    below = Below.of(tree, 1)
    parent = (tree.parent[slice(*tree.levels[2])] - 1).astype(np.int64)
    labels = [sorted(rng.choice(40, rng.integers(0, 5), replace=False).tolist()) for _ in range(1000)]
    parents = parents_of(parent, of(*labels))
    predicted = np.stack([rng.permutation(9)[:4] for _ in labels])
    cand = below.candidates(kept_nodes(predicted, parents, 4))
    found = marks(cand, of(*labels))
    assert cand.shape == (1000, 4 * 5)
    assert found.sum() == sum(map(len, labels))
    assert (np.sort(cand, 1)[:, 1:] > np.sort(cand, 1)[:, :-1])[np.sort(cand, 1)[:, 1:] >= 0].all()


def test_candidates_are_all_children_and_nothing_else() -> None:
    tree = balanced_tree(7, arity=3, max_leaves=3)  # clusters of 3, 2 and 2 labels
    below = Below.of(tree, 1)
    assert below.candidates(np.array([[1, 0], [2, -1]])).tolist() == [[3, 4, -1, 0, 1, 2], [5, 6, -1, -1, -1, -1]]
    assert below.of_parent(np.array([[0.5, 0.25]])).tolist() == [[0.5] * 3 + [0.25] * 3]


def test_positives_under_other_numbers_ascend() -> None:
    found = renumbered(np.array([9, 1, 5, 0]), of([0, 1, 3], [2]))
    assert found.ids.tolist() == [0, 1, 9, 5]


@pytest.mark.parametrize(
    ("epoch", "point", "expected"),
    [(0, 0, [3, 8, 1, 4, 3, 4]), (1, 0, [9, 0, 4, 0, 11, 5]), (0, 1, [10, 9, 9, 6, 6, 11])],
)
def test_random_fill_depends_on_seed_epoch_and_point(epoch: int, point: int, expected: list[int]) -> None:
    cand = np.full((2, 7), -1)
    cand[:, 3] = 99
    filled = random_fill(cand, 12, 0, epoch, np.array([7, point]))
    assert filled[1, [0, 1, 2, 4, 5, 6]].tolist() == expected
    assert filled[:, 3].tolist() == [99, 99]
