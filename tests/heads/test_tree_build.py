"""Tree builders against the worked examples of the specification."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexml.config import ConfigError
from dexml.heads.tree import LabelTree, TreeError
from dexml.heads.treebuild import (
    balanced_tree,
    clustered_tree,
    complete_tree,
    from_levels,
    huffman_tree,
    kmeans_tree,
    staged_tree,
)


def features(n: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, width))


def leaf_depths(tree: LabelTree) -> list[int]:
    return tree.depth[tree.leaf_of].tolist()


def groups(tree: LabelTree, max_leaves: int) -> list[list[int]]:
    """The parts that were not split further: labels of nodes of at most `max_leaves`, whose parents have more."""
    whole = np.flatnonzero(tree.n_under <= max_leaves)
    tops = whole[tree.n_under[tree.parent[whole]] > max_leaves]
    return sorted(tree.leaf_order[tree.leaf_lo[v] : tree.leaf_hi[v]].tolist() for v in tops)


@pytest.mark.parametrize(
    ("n_labels", "cluster_size", "sizes"),
    [
        (3956, 8, {7: 140, 8: 372}),
        (4271, 8, {4: 849, 5: 175}),
        (201, 100, {50: 3, 51: 1}),
        (16, 2, {2: 8}),
        (9, 8, {4: 1, 5: 1}),
        (5, 8, {5: 1}),
        (8, 8, {8: 1}),
        (3, 1, {1: 3}),
        (1, 1, {1: 1}),
        (1, 8, {1: 1}),
    ],
)
def test_the_cluster_size_is_an_upper_bound(n_labels: int, cluster_size: int, sizes: dict[int, int]) -> None:
    tree = clustered_tree(features(n_labels), cluster_size)
    assert Counter(tree.clusters.size.tolist()) == sizes
    assert (tree.height, tree.staged, tree.n_nodes) == (2, True, 1 + sum(sizes.values()) + n_labels)
    assert tree.meta == {"builder": "clustered", "cluster_size": cluster_size, "seed": 0, "n_init": 1}


@pytest.mark.parametrize("n_labels", [17, 33, 34, 35])
def test_label_counts_that_stopped_published_code_work(n_labels: int) -> None:
    assert clustered_tree(features(n_labels), 8).clusters.size.max() <= 8


def test_a_deep_tree_keeps_the_levels_asked_for() -> None:
    tree = staged_tree(features(700), [2, 5, 7])
    assert [high - low for low, high in tree.levels] == [1, 4, 32, 128, 700]
    assert set(tree.clusters.size.tolist()) == {5, 6}
    low, high = tree.levels[2]
    assert tree.children(np.arange(low, high))[1].tolist() == list(range(*tree.levels[3]))
    assert (tree.n_child[low:high] == 4).all()


@pytest.mark.parametrize(
    ("n_labels", "depths", "n_nodes", "sizes"),
    [
        (30_938, [12], 35_035, [{7, 8}]),
        (670_091, [11, 14, 17], 819_596, [{327, 328}, {40, 41}, {5, 6}]),
        (501_008, [13], 509_201, [{61, 62}]),
        (2_812_281, [13, 16, 19], 3_410_298, [{343, 344}, {42, 43}, {5, 6}]),
    ],
)
def test_sizes_of_the_published_trees(n_labels: int, depths: list[int], n_nodes: int, sizes: list[set[int]]) -> None:
    """Halves of halves, as `staged_tree` splits, of labels in their order."""
    nodes = [np.repeat(np.arange(2**depth), halves(n_labels, depth)) for depth in depths]
    tree = from_levels(nodes)
    assert tree.n_nodes == n_nodes
    for level, expected in enumerate(sizes, 1):
        low, high = tree.levels[level]
        assert set((tree.leaf_hi - tree.leaf_lo)[low:high].tolist()) == expected


def halves(n: int, depth: int) -> np.ndarray:
    """Sizes after so many splits; the left half is the smaller."""
    sizes = np.array([n])
    for _ in range(depth):
        sizes = np.stack([sizes // 2, sizes - sizes // 2], 1).ravel()
    return sizes


def test_levels_deeper_than_the_labels_allow_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"16 clusters but there are 15 labels: the deepest level can be 3"):
        staged_tree(features(15), [2, 4])
    for levels in ([], [4, 2], [2, 2], [-1]):
        with pytest.raises(ConfigError, match="ascending"):
            staged_tree(features(15), levels)
    assert staged_tree(features(1), [0]).clusters.size.tolist() == [1]


def test_collapsing_the_binary_tree_gives_the_staged_one() -> None:
    z = features(100)
    assert staged_tree(z, [1, 2, 3, 4]).collapse([2, 4]) == staged_tree(z, [2, 4])


@pytest.mark.parametrize(
    ("arity", "n_labels", "n_nodes", "depths"),
    [
        (3, 4, 6, [1, 1, 2, 2]),
        (2, 5, 9, [2, 2, 2, 3, 3]),
        (3, 7, 10, [1, 2, 2, 2, 2, 2, 2]),
        (2, 1, 2, [1]),
        (5, 1, 2, [1]),
        (2, 2, 3, [1, 1]),
    ],
)
def test_complete_trees(arity: int, n_labels: int, n_nodes: int, depths: list[int]) -> None:
    tree = complete_tree(n_labels, arity)
    assert (tree.n_nodes, leaf_depths(tree)) == (n_nodes, depths)
    assert tree.leaf_of.tolist() == list(range(n_nodes - n_labels, n_nodes))


def test_complete_trees_of_wiki10() -> None:
    binary, wide = complete_tree(30938, 2), complete_tree(30938, 16)
    assert (binary.n_nodes, set(leaf_depths(binary))) == (61875, {14, 15})
    assert (wide.n_nodes, set(leaf_depths(wide))) == (33001, {3, 4})


def test_balanced_trees() -> None:
    assert groups(balanced_tree(10, 2, 3), 3) == [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9]]
    assert groups(balanced_tree(11, 3, 2), 2) == [[0, 1], [2], [3], [4, 5], [6], [7], [8], [9], [10]]


def test_huffman_trees_are_the_shallowest_for_their_priors() -> None:
    priors = np.array([0.5, 0.25, 0.15, 0.1])
    for arity, depths, mean in ((2, [1, 2, 3, 3], 1.75), (3, [1, 1, 2, 2], 1.25)):
        tree = huffman_tree(priors, arity)
        assert leaf_depths(tree) == depths
        assert np.dot(priors, leaf_depths(tree)) == pytest.approx(mean)
    assert leaf_depths(huffman_tree(np.array([7]), 2)) == [1]


@pytest.mark.parametrize("priors", [[1, np.nan], [1, -1], []])
def test_priors_must_be_numbers(priors: list[float]) -> None:
    with pytest.raises(TreeError, match="finite and not negative"):
        huffman_tree(np.array(priors), 2)


@given(st.integers(1, 80), st.integers(2, 6), st.integers(1, 20), st.booleans())
def test_every_builder_makes_a_tree_of_every_label_count(n: int, arity: int, m: int, balanced: bool) -> None:
    priors = np.random.default_rng(n).integers(0, 5, n)
    for tree in (
        kmeans_tree(features(n), arity, m, balanced=balanced),
        kmeans_tree(np.zeros((n, 2)), arity, m, balanced=balanced),
        balanced_tree(n, arity, m, seed=0),
        complete_tree(n, arity, seed=0),
        huffman_tree(priors, arity),
    ):
        assert tree.n_leaves == n
        assert tree.n_child.max() <= max(arity, m)


def test_huffman_inner_nodes_are_full_but_for_the_deepest() -> None:
    tree = huffman_tree(np.random.default_rng(0).random(50), 4)
    assert tree.n_child[0] == 4 and sorted(Counter(tree.n_child[tree.n_child > 0].tolist())) in ([3, 4], [2, 4], [4])


def test_seeds_and_only_seeds_change_a_tree() -> None:
    z = features(60)
    for build in (
        lambda seed: clustered_tree(z, 8, seed),
        lambda seed: kmeans_tree(z, 3, 5, seed),
        lambda seed: balanced_tree(60, 3, 5, seed),
        lambda seed: complete_tree(60, 3, seed),
    ):
        assert build(0).hash == build(0).hash != build(1).hash


def test_given_clusters_keep_their_order_and_may_have_any_numbers() -> None:
    tree = from_levels([np.array([9, 4, 9, 4]), np.array([30, 10, 20, 10])])
    assert tree.parent.tolist() == [-1, 0, 0, 1, 2, 2, 3, 3, 4, 5]
    assert tree.label_of.tolist() == [-1] * 6 + [1, 3, 2, 0]


def test_a_cluster_below_two_others_is_refused() -> None:
    with pytest.raises(TreeError, match="clusters 5 lie in several"):
        from_levels([np.array([0, 1, 1]), np.array([5, 5, 6])])
    with pytest.raises(TreeError, match="one for every label"):
        from_levels([np.array([0, 1, 1]), np.array([5, 5])])
    with pytest.raises(TreeError, match="without a cluster"):
        from_levels([np.array([-1, -1])])


def test_senseless_shapes_are_refused() -> None:
    for build in (
        lambda: clustered_tree(features(3), 0),
        lambda: kmeans_tree(features(3), 1, 5),
        lambda: balanced_tree(3, 2, 0),
        lambda: complete_tree(3, 1),
    ):
        with pytest.raises(ConfigError, match="the least"):
            build()
    for empty in (lambda: balanced_tree(0, 2, 1), lambda: complete_tree(0, 2)):
        with pytest.raises(TreeError, match="0 labels"):
            empty()
