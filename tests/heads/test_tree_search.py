"""Searches of a probabilistic label tree against uniform-cost search with a queue, and against all marginals."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.heads.tree import LabelTree
from dexml.heads.tree_search import Conditionals, Found, TreeSearch
from dexml.heads.treebuild import complete_tree
from tests.heads.trees import T, naive_path, random_tree

C1 = np.array([0.9, 0.8, 0.5, 0.5, 0.25, 0.9, 0.1])
C2 = np.array([0.9, 0.8, 0.3, 0.5, 0.25, 0.9, 0.1])


def log(x: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(x)


def given(eta_NV: np.ndarray) -> Conditionals:
    logs = torch.from_numpy(log(eta_NV))

    def conditionals(indptr: Tensor, nodes: Tensor) -> Tensor:
        return logs[torch.repeat_interleave(indptr.diff()), nodes]

    return conditionals


def told(found: Found, text: int = 0) -> list[tuple[int, float]]:
    own = slice(int(found.indptr[text]), int(found.indptr[text + 1]))
    return list(zip(found.labels[own].tolist(), found.log_values[own].exp().tolist(), strict=True))


def close(found: Found, labels: list[int], values: list[float]) -> None:
    assert [label for label, _ in told(found)] == labels
    assert [value for _, value in told(found)] == pytest.approx(values, abs=1e-9)


@dataclass
class Reference:
    """Uniform-cost search with a queue, word for word."""

    popped: list[tuple[float, int]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    evaluations: int = 1


def uniform_cost(tree: LabelTree, eta: np.ndarray, k: int, weights: np.ndarray, thresholds: np.ndarray) -> Reference:
    """Thresholds prune, weights bound; of equal keys inner nodes come first, then smaller labels."""
    under = [[label for label in range(tree.n_labels) if v in naive_path(tree, label)] for v in range(tree.n_nodes)]
    largest, least = ([f(array[own]) for own in under] for f, array in ((np.max, weights), (np.min, thresholds)))

    def entry(log_eta: float, v: int) -> tuple[float, bool, int, float, int]:
        label = int(tree.label_of[v])
        return -float(log_eta + log(largest[v])), label >= 0, max(label, v * (label < 0)), log_eta, v

    root = float(log(eta[0]))
    result, queue = Reference(), [entry(root, 0)] if np.exp(root) >= least[0] else []
    while queue and (k == 0 or len(result.labels) < k):
        key, is_leaf, label, log_eta, v = heapq.heappop(queue)
        result.popped.append((float(np.exp(-key)), v))
        if is_leaf:
            result.labels.append(label)
            result.values.append(float(np.exp(-key)))
            continue
        for child in range(tree.first_child[v], tree.first_child[v] + tree.n_child[v]):
            result.evaluations += 1
            below = log_eta + float(log(eta[child]))
            if below >= log(least[child]):
                heapq.heappush(queue, entry(below, child))
    return result


def plain(tree: LabelTree) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(tree.n_labels), np.zeros(tree.n_labels)


# ---- the worked example ---------------------------------------------------------------------------------------------


def test_marginals_and_exact_order() -> None:
    search = TreeSearch(T)
    logs = search.log_marginals(given(C1[None]), torch.tensor([[0, 1, 2, 3, -1]]))
    assert logs.exp()[0].tolist() == pytest.approx([0.36, 0.18, 0.405, 0.045, 0])
    found = search.exact(given(C1[None]), 1, 4)
    close(found, [2, 0, 1, 3], [0.405, 0.36, 0.18, 0.045])
    assert found.evaluations.tolist() == [7]
    first = search.exact(given(C1[None]), 1, 1)
    close(first, [2], [0.405])
    assert first.evaluations.tolist() == [7]


def test_nodes_that_cannot_win_are_not_opened() -> None:
    found = TreeSearch(T).exact(given(C2[None]), 1, 1)
    close(found, [0], [0.36])
    assert found.evaluations.tolist() == [5]
    close(TreeSearch(T).exact(given(C2[None]), 1, 4), [0, 2, 1, 3], [0.36, 0.243, 0.18, 0.027])


def test_a_threshold_prunes_subtrees() -> None:
    some = TreeSearch(T, thresholds=0.2).exact(given(C1[None]), 1)
    close(some, [2, 0], [0.405, 0.36])
    assert some.evaluations.tolist() == [7]
    none = TreeSearch(T, thresholds=0.5).exact(given(C1[None]), 1)
    assert (told(none), none.evaluations.tolist()) == ([], [5])


def test_a_narrow_beam_can_miss_the_best_label() -> None:
    narrow = TreeSearch(T).beam(given(C1[None]), 1, 4, 1)
    close(narrow, [0, 1], [0.36, 0.18])
    assert narrow.evaluations.tolist() == [5]
    assert [*narrow.omitted_max.tolist(), *narrow.omitted_mass.tolist()] == pytest.approx([0.45, 0.9])
    close(TreeSearch(T).beam(given(C1[None]), 1, 4, 2), [2, 0, 1, 3], [0.405, 0.36, 0.18, 0.045])


def test_weights_change_the_order() -> None:
    weights = np.array([1.0, 3, 1, 10])
    close(TreeSearch(T, weights).exact(given(C1[None]), 1, 4), [1, 3, 2, 0], [0.54, 0.45, 0.405, 0.36])
    reference = uniform_cost(T, C1, 4, weights, plain(T)[1])
    assert [node for _, node in reference.popped] == [0, 2, 1, 4, 6, 5, 3]
    assert [key for key, _ in reference.popped[:3]] == pytest.approx([9.0, 4.5, 2.16])


def test_thresholds_of_labels() -> None:
    found = TreeSearch(T, thresholds=np.array([0.4, 0.1, 0.4, 0.2])).exact(given(C1[None]), 1)
    close(found, [2, 1], [0.405, 0.18])


# ---- random trees ---------------------------------------------------------------------------------------------------


def random_case(seed: int) -> tuple[LabelTree, np.ndarray, np.random.Generator]:
    """A tree of up to 40 nodes and the conditionals of 1 to 3 texts; in every third case many are equal, or 0."""
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, int(rng.integers(1, 40)))
    eta = rng.random((int(rng.integers(1, 4)), tree.n_nodes))
    return tree, np.round(eta * 2) / 2 if seed % 3 == 0 else eta, rng


def brute_force(tree: LabelTree, eta: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> list[int]:
    logs = [sum(float(log(eta[v])) for v in naive_path(tree, label)) for label in range(tree.n_labels)]
    keys = [logs[label] + float(log(weights[label])) for label in range(tree.n_labels)]
    kept = [label for label in range(tree.n_labels) if logs[label] >= log(thresholds[label])]
    return sorted(kept, key=lambda label: (-keys[label], label))


def test_exact_search_is_brute_force_and_uniform_cost_search_on_a_thousand_trees() -> None:
    for seed in range(1000):
        tree, eta, rng = random_case(seed)
        weights, thresholds = plain(tree)
        k = int(rng.integers(1, tree.n_labels + 2))
        found = TreeSearch(tree).exact(given(eta), len(eta), k)
        for text, own in enumerate(eta):
            wanted = uniform_cost(tree, own, k, weights, thresholds)
            assert [label for label, _ in told(found, text)] == wanted.labels
            assert wanted.labels == brute_force(tree, own, weights, thresholds)[:k]
            assert [value for _, value in told(found, text)] == pytest.approx(wanted.values, abs=1e-12)


def test_weights_and_thresholds_are_brute_force_on_random_trees() -> None:
    for seed in range(300):
        tree, eta, rng = random_case(seed)
        weights, thresholds = rng.random(tree.n_labels) * 5 + 0.01, rng.random(tree.n_labels) ** 3
        k = int(rng.integers(0, tree.n_labels + 2))
        found = TreeSearch(tree, weights, thresholds).exact(given(eta), len(eta), k)
        for text, own in enumerate(eta):
            wanted = brute_force(tree, own, weights, thresholds)[: k or None]
            assert [label for label, _ in told(found, text)] == wanted
            assert uniform_cost(tree, own, k, weights, thresholds).labels == wanted


def test_exact_search_opens_no_more_nodes_than_the_queue_where_the_first_beam_finds_the_best() -> None:
    more = equal = 0
    for seed in range(1, 600, 3):
        tree, eta, _ = random_case(seed)
        evaluations = TreeSearch(tree).exact(given(eta[:1]), 1, 1).evaluations.tolist()[0]
        wanted = uniform_cost(tree, eta[0], 1, *plain(tree)).evaluations
        assert evaluations >= wanted
        more, equal = more + (evaluations > wanted), equal + (evaluations == wanted)
    assert equal > 3 * more


def test_a_beam_as_wide_as_the_tree_is_exact() -> None:
    for seed in range(200):
        tree, eta, _ = random_case(seed)
        exact = TreeSearch(tree).exact(given(eta), len(eta), tree.n_labels)
        wide = TreeSearch(tree).beam(given(eta), len(eta), tree.n_labels, tree.n_nodes)
        assert wide.labels.tolist() == exact.labels.tolist()
        assert wide.log_marginals.exp().tolist() == pytest.approx(exact.log_marginals.exp().tolist(), abs=1e-7)
        assert wide.omitted_mass.abs().max() == 0


def test_what_a_beam_leaves_out_is_below_its_bounds() -> None:
    for seed in range(300):
        tree, eta, rng = random_case(seed)
        k, width = int(rng.integers(0, 4)), int(rng.integers(1, 4))
        found = TreeSearch(tree).beam(given(eta), len(eta), k, width)
        every = torch.arange(tree.n_labels).expand(len(eta), -1)
        marginals = TreeSearch(tree).log_marginals(given(eta), every).exp().numpy()
        for text in range(len(eta)):
            left = np.setdiff1d(np.arange(tree.n_labels), [label for label, _ in told(found, text)])
            assert marginals[text, left].max(initial=0) <= found.omitted_max[text] + 1e-12
            assert marginals[text, left].sum() <= found.omitted_mass[text] + 1e-12


@pytest.mark.parametrize(("k", "width"), [(5, 0), (5, 2), (0, 3)])
def test_texts_do_not_change_each_other(k: int, width: int) -> None:
    tree = complete_tree(50, 3)
    eta = np.random.default_rng(0).random((7, tree.n_nodes))
    search = TreeSearch(tree)

    def run(some: np.ndarray) -> Found:
        return search.beam(given(some), len(some), k, width) if width else search.exact(given(some), len(some), k)

    together = run(eta)
    assert [told(together, i) for i in range(7)] == [told(run(eta[i : i + 1])) for i in range(7)]


def test_marginals_never_grow_along_a_path() -> None:
    for seed in range(50):
        tree, eta, _ = random_case(seed)
        asked: list[int] = []

        def counted(indptr: Tensor, nodes: Tensor, eta: np.ndarray = eta, asked: list[int] = asked) -> Tensor:
            asked.append(len(nodes))
            return given(eta)(indptr, nodes)

        every = torch.arange(tree.n_labels).expand(len(eta), -1)
        logs = TreeSearch(tree).log_marginals(counted, every)
        assert asked == [len(eta) * tree.n_nodes]  # nodes shared by paths are asked once
        for label in range(tree.n_labels):
            path = log(eta[:, naive_path(tree, label)]).cumsum(axis=1)
            assert (np.exp(path)[:, 1:] <= np.exp(path)[:, :-1]).all()
            np.testing.assert_allclose(logs[:, label].numpy(), path[:, -1], atol=1e-12)


def test_deep_trees_do_not_underflow() -> None:
    parent = np.array([-1, *np.repeat(np.arange(0, 800, 2), 2)])
    label_of = np.full(801, -1)
    leaves = np.setdiff1d(np.arange(801), parent)
    label_of[leaves] = np.arange(len(leaves))
    tree = LabelTree.of(parent, label_of, len(leaves))
    assert tree.height == 400
    found = TreeSearch(tree).exact(given(np.full((1, 801), 0.01)), 1, len(leaves))
    assert torch.isfinite(found.log_marginals).all() and len(found.labels) == len(leaves)
    assert found.log_marginals.min() < -1800


def test_lists_are_padded() -> None:
    ids, values = TreeSearch(T).beam(given(C1[None]), 1, 4, 1).lists(3)
    assert ids.tolist() == [[0, 1, -1]]
    assert values[0].exp().tolist() == pytest.approx([0.36, 0.18, 0])


def test_one_label() -> None:
    tree = LabelTree(np.array([-1, 0]), np.array([-1, 0]), 1)
    close(TreeSearch(tree).exact(given(np.array([[0.5, 0.5]])), 1, 3), [0], [0.25])
    close(TreeSearch(tree).beam(given(np.array([[0.5, 0.5]])), 1, 3, 10), [0], [0.25])


def test_labels_of_a_partial_tree_without_a_leaf_have_no_probability() -> None:
    tree = LabelTree(np.array([-1, 0, 0]), np.array([-1, 2, 0]), 3, {"partial": True})
    eta = given(np.array([[0.5, 0.5, 0.25]]))
    assert TreeSearch(tree).log_marginals(eta, torch.tensor([[0, 1, 2]])).exp()[0].tolist() == pytest.approx(
        [0.125, 0, 0.25]
    )
    close(TreeSearch(tree).exact(eta, 1, 3), [2, 0], [0.25, 0.125])
