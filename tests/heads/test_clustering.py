"""Balanced clusters: worked examples of the specification, naive twins, and inputs that must not make them fail."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.heads import clustering, kmeans
from dexml.heads.clustering import bisect, block_order, split_nodes
from dexml.heads.pairs import DensePairs, checked, pairs_of, unit_rows
from tests.heads.trees import naive_assign, naive_two_means
from tests.helpers.processes import ROOT

PIFA = np.array([[0.99847, 0.0553, 0], [1, 0, 0], [0, 0.0553, 0.99847], [0, 0, 1]])
KINDS = {"dense": np.asarray, "sparse": sparse.csr_array}
AWKWARD = {
    "zeros": lambda n: np.zeros((n, 3)),
    "equal": lambda n: np.ones((n, 3)),
    "duplicates": lambda n: np.eye(3)[np.arange(n) % 3],
    "one column": lambda n: np.arange(n)[:, None] - n / 2,
    "empty rows": lambda n: sparse.csr_array((n, 5)),
    "no columns": lambda n: sparse.csr_array((n, 1)),
    "integers": lambda n: np.arange(2 * n).reshape(n, 2) % 5,
}


def split(features: np.ndarray, first: int, second: int) -> tuple[list[int], float]:
    n = features.shape[0]
    side, value = split_nodes(
        checked(features), np.arange(n), np.zeros(n, int), np.array([n // 2]), np.array([[[first, second]]])
    )
    return side.tolist(), float(value[0])


def tree_sizes(n_labels: int, n_clusters: int) -> np.ndarray:
    """Sizes of the clusters, from the rule alone."""
    sizes, clusters = np.array([n_labels]), np.array([min(n_labels, n_clusters)])
    while clusters.max() > 1:
        left, half = clustering._left_sizes(sizes, clusters, 0), clusters // 2
        both = half > 0
        sizes = clustering._interleave(np.where(both, left, sizes), sizes - left, both)
        clusters = clustering._interleave(np.where(both, half, 1), clusters - half, both)
    return sizes


@pytest.mark.parametrize("kind", KINDS)
def test_two_labels_of_one_centre_decide_which_optimum_is_found(kind: str) -> None:
    z = KINDS[kind](PIFA)
    found = {pair: split(z, *pair) for pair in itertools.combinations(range(4), 2)}
    assert found[0, 2][0] == [0, 0, 1, 1] and found[0, 2][1] == pytest.approx(0.999617, abs=1e-6)
    assert found[0, 1][0] == [0, 1, 0, 1] and found[0, 1][1] == pytest.approx(0.707647, abs=1e-6)
    assert [pair for pair, (_, value) in found.items() if value < 0.99] == [(0, 1), (2, 3)]


@pytest.mark.parametrize("kind", KINDS)
def test_restarts_keep_the_best_optimum(kind: str) -> None:
    starts = np.array(list(itertools.combinations(range(4), 2)))[:, None]
    side, value = split_nodes(checked(KINDS[kind](PIFA)), np.arange(4), np.zeros(4, int), np.array([2]), starts)
    assert value[0] == pytest.approx(0.999617, abs=1e-6)
    assert side[0] == side[1] != side[2] == side[3]


def test_all_starts_of_the_lightxml_example_agree_after_three_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    once = DensePairs.similarities
    monkeypatch.setattr(DensePairs, "similarities", lambda self, side: passes.append(1) or once(self, side))
    z = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    for first, second in itertools.permutations(range(4), 2):
        passes.clear()
        side, value = split(z, first, second)
        assert side in ([0, 0, 1, 1], [1, 1, 0, 0])
        assert value == pytest.approx(0.998470, abs=1e-6)
        assert len(passes) <= 3


@pytest.mark.parametrize(
    ("n_labels", "n_clusters", "sizes"),
    [
        (30938, 4096, {7: 1830, 8: 2266}),
        (3956, 512, {7: 140, 8: 372}),
        (13330, 2048, {6: 1006, 7: 1042}),
        (4271, 1024, {4: 849, 5: 175}),
        (670091, 2**17, {5: 116341, 6: 14731}),
        (670091, 2**14, {40: 1653, 41: 14731}),
        (670091, 2**11, {327: 1653, 328: 395}),
        (667317, 8192, {81: 4427, 82: 3765}),
        (501070, 8192, {61: 6834, 62: 1358}),
        (2812281, 2**19, {5: 333447, 6: 190841}),
        (201, 4, {50: 3, 51: 1}),
        (3, 4, {1: 3}),
    ],
)
def test_cluster_sizes_are_those_of_the_published_trees(n_labels: int, n_clusters: int, sizes: dict[int, int]) -> None:
    assert Counter(tree_sizes(n_labels, n_clusters).tolist()) == sizes
    assert sum(size * count for size, count in sizes.items()) == n_labels


def test_the_left_half_is_the_smaller_one() -> None:
    assert tree_sizes(11, 8).tolist() == [1, 1, 1, 2, 1, 2, 1, 2]
    levels = bisect(np.random.default_rng(0).standard_normal((11, 3)), 8)
    assert [np.bincount(level).tolist() for level in levels[1:3]] == [[5, 6], [2, 3, 3, 3]]


def test_first_centres_are_two_different_labels_drawn_uniformly() -> None:
    sizes = np.full(3000, 4)
    starts = clustering._starts(clustering._keys(0, np.arange(3000), 1), sizes)[0] - 4 * np.arange(3000)[:, None]
    pairs = Counter(map(tuple, starts.tolist()))
    assert sorted(pairs) == list(itertools.permutations(range(4), 2))
    assert min(pairs.values()) > 190 and max(pairs.values()) < 310  # 250 each, 15 a standard deviation


@pytest.mark.parametrize("kind", KINDS)
def test_many_nodes_at_once_are_split_as_each_alone(kind: str) -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([2, 7, 3, 40, 11, 2])
    node, offsets = np.repeat(np.arange(6), sizes), np.cumsum(sizes) - sizes
    z = rng.standard_normal((len(node) + 5, 4)) * (rng.random((len(node) + 5, 4)) < 0.7)
    rows = np.concatenate([np.sort(part) for part in np.split(rng.permutation(len(z))[: len(node)], offsets[1:])])
    starts = np.stack([offsets, offsets + 1], axis=1)
    side, value = split_nodes(checked(KINDS[kind](z)), rows, node, sizes // 2, starts[None])
    for i, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        wanted = naive_two_means(unit_rows(z)[rows[offset : offset + size]], size // 2, 0, 1)
        assert side[offset : offset + size].tolist() == wanted[0]
        assert value[i] == pytest.approx(wanted[1], abs=1e-12)


def test_sparse_and_dense_features_give_the_same_similarities() -> None:
    rng = np.random.default_rng(1)
    z = unit_rows(rng.standard_normal((30, 9)) * (rng.random((30, 9)) < 0.4))
    rows, node = rng.permutation(30)[:20], np.sort(rng.integers(0, 4, 20))
    side = rng.integers(-1, 2, 20).astype(np.int8)
    dense, other = (pairs_of(f, rows, node, 4).similarities(side) for f in (z, sparse.csr_array(z)))
    np.testing.assert_allclose(dense, other, atol=1e-12)


@settings(max_examples=60)
@given(n=st.integers(1, 40), k=st.integers(1, 50), seed=st.integers(0, 2**40), kind=st.sampled_from(sorted(AWKWARD)))
def test_clusters_of_any_features_are_balanced_and_nested(n: int, k: int, seed: int, kind: str) -> None:
    levels = bisect(AWKWARD[kind](n), k, seed)
    assert not levels[0].any()
    sizes = np.bincount(levels[-1])
    assert len(sizes) == min(n, k) and sizes.max() - sizes.min() <= 1
    assert [len(np.bincount(level)) for level in levels] == sorted(len(np.bincount(level)) for level in levels)
    for above, below in itertools.pairwise(levels):
        assert (np.diff(above[np.argsort(below, kind="stable")]) >= 0).all()  # children in the order of their parents


@settings(max_examples=40)
@given(n=st.integers(1, 60), k=st.integers(1, 9), balanced=st.booleans(), kind=st.sampled_from(sorted(AWKWARD)))
def test_kmeans_never_fails_and_leaves_no_part_empty(n: int, k: int, balanced: bool, kind: str) -> None:
    sizes = np.bincount(kmeans.kmeans(AWKWARD[kind](n), k, balanced=balanced))
    assert len(sizes) == min(n, k) and sizes.min() > 0
    assert not balanced or sizes.max() - sizes.min() <= 1


def test_labels_choose_parts_as_in_the_worked_example() -> None:
    near = np.array(
        [
            [0.9, 0.1, 0],
            [0.8, 0.3, 0.1],
            [0.7, 0.6, 0.2],
            [0.6, 0.5, 0.1],
            [0.1, 0.9, 0.3],
            [0.2, 0.4, 0.95],
            [0.3, 0.2, 0.5],
        ]
    )
    part = kmeans.assign_balanced(near)
    assert part.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert near[np.arange(7), part].mean() == pytest.approx(0.75)


@given(n=st.integers(0, 30), k=st.integers(1, 8), values=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_parts_filled_step_by_step_are_those_filled_label_by_label(n: int, k: int, values: int, seed: int) -> None:
    near = np.random.default_rng(seed).integers(0, values, (n, k)).astype(float)  # with ties
    assert kmeans.assign_balanced(near).tolist() == (naive_assign(near) if n else [])


def test_kmeans_finds_separated_groups() -> None:
    rng = np.random.default_rng(0)
    topic = rng.permutation(np.repeat(np.arange(3), 20))
    part = kmeans.kmeans(np.eye(3)[topic] + 0.05 * rng.standard_normal((60, 3)), 3, n_init=4)
    assert len(set(zip(topic.tolist(), part.tolist(), strict=True))) == 3


def test_topics_are_not_torn_apart() -> None:
    rng = np.random.default_rng(0)
    topic = rng.permutation(np.repeat(np.arange(16), 8))
    z = np.eye(16)[topic] + 0.02 * rng.standard_normal((128, 16))
    found = bisect(z, 16, n_init=8)[-1]
    assert len(set(zip(topic.tolist(), found.tolist(), strict=True))) <= 18


def test_memory_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(0).standard_normal((300, 5))
    monkeypatch.setattr(clustering, "EPS", 0.005)  # many nodes stop where others go on
    whole = [bisect(z, 64, n_init=n_init)[-1].tolist() for n_init in (1, 2)]
    monkeypatch.setattr(clustering, "GROUP", 13)
    assert [bisect(z, 64, n_init=n_init)[-1].tolist() for n_init in (1, 2)] == whole


def test_the_seed_decides_and_threads_do_not() -> None:
    code = (
        "import sys, hashlib, numpy as np; from dexml.heads.clustering import bisect;"
        "z = np.random.default_rng(0).standard_normal((6000, 33)).astype(np.float32);"
        "print(*(hashlib.sha256(bisect(z, 512, s)[-1].tobytes()).hexdigest() for s in (0, 0, 1)))"
    )
    found = []
    for threads in ("1", "4"):
        env = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": "/usr/bin"}
        out = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        found.append(out.stdout.split())
    assert found[0] == found[1]
    assert found[0][0] == found[0][1] != found[0][2]


def test_blocks_are_full_but_for_the_last() -> None:
    rng = np.random.default_rng(0)
    topic = rng.permutation(np.repeat(np.arange(5), 10))[:47]
    order = block_order(np.eye(5)[topic], 10, n_init=8)
    assert sorted(order.tolist()) == list(range(47))
    sizes = np.bincount(bisect(np.eye(5)[topic], 1, block=10)[-1])
    assert sizes.tolist() == [10, 10, 10, 10, 7]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_not_finite_are_refused_with_their_row(kind: str, bad: float) -> None:
    z = np.ones((4, 3))
    z[2, 1] = bad
    with pytest.raises(DataError, match="row 2 holds nan or infinity"):
        bisect(KINDS[kind](z), 2)


def test_no_labels_and_senseless_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="one or more labels"):
        bisect(np.ones((0, 3)), 2)
    with pytest.raises(ConfigError, match="n_clusters is 0"):
        bisect(np.ones((3, 3)), 0)
    with pytest.raises(ConfigError, match="k is 0"):
        kmeans.kmeans(np.ones((3, 3)), 0)
    with pytest.raises(ConfigError, match="block is 0"):
        block_order(np.ones((3, 3)), 0)


def test_unit_rows_keeps_zeros_and_adds_up_repeated_cells() -> None:
    rows = sparse.csr_array((np.array([1.0, 2.0, 4.0]), ([0, 0, 0], [1, 1, 0])), shape=(2, 3))
    np.testing.assert_allclose(unit_rows(rows).toarray(), [[0.8, 0.6, 0], [0, 0, 0]])
    np.testing.assert_allclose(unit_rows(np.array([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]], rtol=1e-6)
