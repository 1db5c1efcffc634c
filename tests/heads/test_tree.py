"""The tree artefact: worked examples of the specification, naive twins, invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexml.heads.tree import LabelTree, TreeError
from dexml.heads.treebuild import balanced_tree, clustered_tree, from_levels, from_triples
from dexml.heads.treenodes import training_nodes
from tests.heads.trees import T, naive_labels_under, naive_path, random_tree


def test_the_worked_tree_has_its_arrays() -> None:
    assert T.first_child.tolist() == [1, 3, 5, -1, -1, -1, -1]
    assert T.n_child.tolist() == [2, 2, 2, 0, 0, 0, 0]
    assert T.leaf_of.tolist() == [3, 4, 5, 6]
    assert T.depth.tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert T.levels == [(0, 1), (1, 3), (3, 7)]
    ranges = list(zip(T.leaf_lo.tolist(), T.leaf_hi.tolist(), strict=True))
    assert ranges[:3] == [(0, 4), (0, 2), (2, 4)]
    assert (T.n_nodes, T.n_leaves, T.height, T.max_width(0), T.staged) == (7, 4, 2, 2, True)
    assert T.paths().tolist() == [[0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 2, 6]]
    assert T.ancestor_at(1).tolist() == [1, 1, 2, 2]
    assert T.ancestor_at(3).tolist() == [-1] * 4


def test_collapse_keeps_the_depths_asked_for() -> None:
    flat = T.collapse([0, 2])
    assert flat.parent.tolist() == [-1, 0, 0, 0, 0] and flat.label_of.tolist() == [-1, 0, 1, 2, 3]
    assert T.collapse([0, 1, 2]) == T


def test_a_swapped_label_changes_the_hash() -> None:
    swapped = LabelTree(T.parent, [-1, -1, -1, 1, 0, 2, 3], 4)
    assert swapped.hash != T.hash and swapped != T
    assert LabelTree(T.parent.copy(), T.label_of.copy(), 4, {"seed": 1}) == T
    assert len({T, LabelTree(T.parent, T.label_of, 4)}) == 1


@pytest.mark.parametrize(
    ("parent", "label_of", "fault"),
    [
        ([-1, 0, 0], [-1, 0, -1], "nodes 2 have neither children nor a label"),
        ([-1, 0, 0], [-1, 0, 0], "labels 0 have several leaves"),
        ([-1, 0, 0], [-1, 0, 2], "labels 2 are out of range: there are 2"),
        ([-1, 0, 0, 0], [-1, 0, 1, 7], "out of range"),
        ([-1, 0], [-1, 0], "labels 1 have no leaf"),
        ([-1, 0, 0], [1, 0, 1], "nodes 0 have children and a label"),
        ([-1, 0, 3, 2], [-1, 0, -1, 1], "nodes 2 have no parent before them"),
        ([-1, 0, 1, 0], [-1, -1, 0, 1], "nodes 3 are not numbered breadth first"),
        ([0, 0, 0], [-1, 0, 1], "node 0 has parent 0"),
        ([-1, -1, 0], [-1, 0, 1], "nodes 1 have no parent"),
        ([-1], [0], "give a root and a leaf"),
        ([-1, 0, 0], [-1, 0], "give a root and a leaf"),
    ],
)
def test_what_is_no_tree_is_refused(parent: list[int], label_of: list[int], fault: str) -> None:
    with pytest.raises(TreeError, match=fault):
        LabelTree(np.array(parent), np.array(label_of), 2)


@pytest.mark.parametrize(
    ("triples", "fault"),
    [
        ([(-1, 0, -1), (0, 1, 0), (3, 2, -1), (2, 3, -1)], "nodes 2, 3 are in a cycle"),
        ([(-1, 0, -1), (-1, 1, 0)], "2 nodes have parent -1"),
        ([(-1, 0, -1), (0, 1, 0), (0, 1, 1)], "nodes 1 are listed twice"),
        ([(-1, 0, -1), (9, 1, 0)], "nodes 1 have a parent that is not listed"),
        ([(-1, 0, -1), (0, 1, 0), (0, 2, 0)], "labels 0 have several leaves"),
        ([(-1, 0, -1), (0, 1, 0), (0, 2, -1)], "nodes 2 have neither"),
    ],
)
def test_a_given_list_of_nodes_is_checked(triples: list[tuple[int, int, int]], fault: str) -> None:
    with pytest.raises(TreeError, match=fault):
        from_triples(np.array(triples), 2)


def test_nodes_may_be_given_in_any_order_and_numbering() -> None:
    triples = [(40, 7, 3), (10, 40, -1), (-1, 10, -1), (30, 5, 1), (10, 30, -1), (30, 4, 0), (40, 6, 2)]
    assert from_triples(np.array(triples), 4) == T


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_every_tree_agrees_with_its_naive_twin(seed: int, size: int) -> None:
    tree = random_tree(np.random.default_rng(seed), size)
    paths = tree.paths()
    for v in range(tree.n_nodes):
        assert tree.leaf_order[tree.leaf_lo[v] : tree.leaf_hi[v]].tolist() == naive_labels_under(tree, v)
    for label in range(tree.n_labels):
        path = naive_path(tree, label)
        assert paths[label].tolist() == path + [-1] * (tree.height + 1 - len(path))
    assert sorted(tree.leaf_order.tolist()) == list(range(tree.n_labels))
    assert [low for low, _ in tree.levels[1:]] == [high for _, high in tree.levels[:-1]]


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_children_and_parents_are_one_relation(seed: int, size: int) -> None:
    tree = random_tree(np.random.default_rng(seed), size)
    indptr, below = tree.children(np.arange(tree.n_nodes))
    assert indptr.tolist() == tree.child_indptr.tolist()
    assert below.tolist() == list(range(1, tree.n_nodes))
    assert np.repeat(np.arange(tree.n_nodes), np.diff(indptr)).tolist() == tree.parent[1:].tolist()
    nodes = np.random.default_rng(seed).integers(0, tree.n_nodes, 5)
    indptr, below = tree.children(nodes)
    for i, node in enumerate(nodes):
        assert below[indptr[i] : indptr[i + 1]].tolist() == np.flatnonzero(tree.parent == node).tolist()


@given(st.integers(0, 10**6), st.integers(1, 40), st.sets(st.integers(0, 8)))
def test_collapsing_keeps_order_and_nearest_ancestors(seed: int, size: int, depths: set[int]) -> None:
    tree = random_tree(np.random.default_rng(seed), size)
    small = tree.collapse(sorted(depths))
    assert small.leaf_order.tolist() == tree.leaf_order.tolist()
    kept = lambda path: [v for v in path if v == 0 or tree.depth[v] in depths or tree.label_of[v] >= 0]  # noqa: E731
    for label in range(tree.n_labels):
        wanted = [naive_labels_under(tree, v) for v in kept(naive_path(tree, label))]
        assert [naive_labels_under(small, v) for v in naive_path(small, label)] == wanted


@pytest.mark.parametrize(
    ("labels", "on_path", "beside"),
    [([0], {0, 1, 3}, {2, 4}), ([0, 3], {0, 1, 2, 3, 6}, {4, 5}), ([], set(), {0})],
)
def test_a_document_trains_its_paths_and_what_is_beside_them(
    labels: list[int], on_path: set[int], beside: set[int]
) -> None:
    indptr, nodes, relevant = training_nodes(T, np.array([0, len(labels)]), np.array(labels, np.int64))
    assert (set(nodes[relevant].tolist()), set(nodes[~relevant].tolist())) == (on_path, beside)
    assert indptr.tolist() == [0, len(on_path) + len(beside)]


@pytest.mark.parametrize(
    ("labels", "unknown", "left_out"),
    [([0], [3], {2}), ([0], [1], {4}), ([0, 3], [1, 2], {4, 5}), ([], [0], {0}), ([0], [], set())],
)
def test_nodes_on_the_way_to_unknown_labels_alone_are_not_trained(
    labels: list[int], unknown: list[int], left_out: set[int]
) -> None:
    own = np.array([0, len(labels), len(labels)]), np.array(labels, np.int64)
    aside = np.array([0, len(unknown), len(unknown)]), np.array(unknown, np.int64)
    ends, nodes, target = training_nodes(T, *own)
    found_ends, found, found_target = training_nodes(T, *own, aside)
    assert set(nodes[: ends[1]].tolist()) - set(found[: found_ends[1]].tolist()) == left_out
    assert found[found_target].tolist() == nodes[target].tolist()
    assert found[found_ends[1] :].tolist() == nodes[ends[1] :].tolist() == [0]


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5))
def test_the_cost_of_a_document_is_one_and_the_children_of_its_paths(seed: int, size: int, n_documents: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, size)
    counts = rng.integers(0, tree.n_labels + 1, n_documents)
    labels = np.concatenate([rng.permutation(tree.n_labels)[:n] for n in counts])
    ends = np.append(0, np.cumsum(counts))
    indptr, nodes, relevant = training_nodes(tree, ends, labels)
    for i in range(n_documents):
        paths = {v for label in labels[ends[i] : ends[i + 1]] for v in naive_path(tree, label)}
        own = slice(indptr[i], indptr[i + 1])
        assert set(nodes[own][relevant[own]].tolist()) == paths
        assert len(nodes[own]) == len(set(nodes[own].tolist())) == 1 + sum(tree.n_child[v] for v in paths)


def test_the_toy_clusters_of_lightxml() -> None:
    tree = from_levels([np.array([0, 0, 0, 1, 1, 2, 2])])
    clusters = tree.clusters
    assert clusters.cluster_of.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert clusters.slot_of.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert clusters.members.tolist() == [[0, 1, 2], [3, 4, -1], [5, 6, -1]]
    assert clusters.size.tolist() == [3, 2, 2]


def test_labels_without_a_cluster_are_marked_not_lost() -> None:
    tree = from_levels([np.array([1, -1, 0, 1])])
    assert tree.meta["partial"] and (tree.n_labels, tree.n_leaves) == (4, 3)
    assert tree.clusters.cluster_of.tolist() == [1, -1, 0, 1] and tree.clusters.slot_of.tolist() == [0, -1, 0, 1]
    assert tree.paths()[1].tolist() == [-1, -1, -1] and sorted(tree.leaf_order.tolist()) == [0, 2, 3]
    with pytest.raises(TreeError, match="labels 1 have no leaf"):
        training_nodes(tree, np.array([0, 1]), np.array([1]))


def test_a_tree_with_leaves_at_several_depths_has_no_clusters() -> None:
    with pytest.raises(TreeError, match="staged"):
        _ = balanced_tree(3, 2, 1).clusters


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 7))
def test_shards_hold_whole_clusters(n_labels: int, cluster_size: int, n_shards: int) -> None:
    tree = clustered_tree(np.random.default_rng(0).standard_normal((n_labels, 2)), cluster_size)
    bounds = tree.shard_bounds(n_shards)
    assert bounds[0] == 0 and bounds[-1] == n_labels and (np.diff(bounds) >= 0).all()
    parts = [set(tree.clusters.cluster_of[tree.leaf_order[a:b]].tolist()) for a, b in zip(bounds, bounds[1:])]  # noqa: B905, RUF007
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(tree.clusters.size)
    assert np.diff(bounds).max() <= -(-n_labels // n_shards) + cluster_size
