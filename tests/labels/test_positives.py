"""Cells of a batch, their roles, and their place on a label shard."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, save_npz

from dexml.data.batching import Batch
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.labels.policy import AllLabels, InBatch, Shortlist
from dexml.labels.positives import batch_cells, known_cells, num_pos
from dexml.losses.types import KEPT, MASKED, REMOVED

CPU = torch.device("cpu")


def shortlist(n_negatives: int, seed: int, folder: Path = Path("unused")) -> Shortlist:
    return Shortlist(n_negatives, seed, folder, World())


def matrix(seed: int, density: float, shape: tuple[int, int] = (20, 13)) -> csr_matrix:
    rng = np.random.default_rng(seed)
    return csr_matrix(((rng.random(shape) < density) * rng.integers(1, 4, shape)).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    take=st.integers(0, 3),
    shards=st.integers(1, 5),
    policy=st.sampled_from(["all", "in-batch", "shortlist"]),
)
def test_shards_together_hold_what_the_loop_finds(seed: int, take: int, shards: int, policy: str) -> None:
    relevance = matrix(seed, 0.2)
    filters = csr_matrix((matrix(seed + 100, 0.1).toarray() > 0) & (relevance.toarray() == 0))
    batch = Batch(np.random.default_rng(seed).permutation(20)[:9], 0, seed)
    cells = batch_cells(relevance, filters, batch, take, seed=1)
    side = {"all": AllLabels(13), "in-batch": InBatch(), "shortlist": shortlist(2, 0)}[policy]
    if isinstance(side, Shortlist):
        side.lists = matrix(seed + 200, 0.3)
    pool = side.pool(batch, cells)
    assert np.array_equal(pool, np.unique(pool))
    seen = {}
    bounds = [s * len(pool) // shards for s in range(shards + 1)]
    for low, high in pairwise(bounds):
        found = cells.on_shard(pool, slice(low, high), CPU)
        found.validate(high - low)
        for row, col, weight, role in zip(found.rows, found.cols, found.weights, found.role, strict=True):
            seen[int(row), int(pool[low + int(col)])] = (float(weight), int(role))
        assert found.n_kept.tolist() == [
            sum(1 for i, r in zip(cells.rows, cells.roles, strict=True) if i == row and r == KEPT) for row in range(9)
        ]
    for row, point in enumerate(batch.points):
        for label in range(13):
            relevant, masked = relevance[point, label], filters[point, label]
            cell = seen.pop((row, label), None)
            if label not in pool:
                assert cell is None
            elif masked:
                assert cell == (0.0, MASKED)
            elif relevant:  # a known positive in the pool is never a negative
                assert cell is not None
                assert cell[0] == relevant
                assert cell[1] in ((KEPT,) if not take else (KEPT, REMOVED))
            else:
                assert cell is None
    assert not seen
    assert set(cells.kept_labels) <= set(pool.tolist())


def test_kept_counts_are_those_asked_for() -> None:
    relevance = matrix(0, 0.4)
    batch = Batch(np.arange(20), 0, 0)
    cells = batch_cells(relevance, None, batch, 2, seed=0)
    kept = np.bincount(cells.rows[cells.roles == KEPT], minlength=20)
    assert kept.tolist() == np.minimum(np.diff(relevance.indptr), 2).tolist()


def test_num_pos_is_the_rounded_up_sum_of_relevance() -> None:
    relevance = csr_matrix(np.array([[0.5, 0.2, 0], [1, 1, 1]], np.float32))
    assert num_pos(relevance, Batch(np.array([1, 0, 1]), 0, 0)).tolist() == [3, 1, 3]


def test_a_shortlist_row_with_too_few_candidates_gives_what_it_has() -> None:
    relevance = csr_matrix(np.eye(4, 6, dtype=np.float32))
    side = shortlist(3, 0)
    side.lists = np.array([[4, 5, -1], [-1, -1, -1], [5, -1, -1], [4, 3, 5]], np.int32)
    batch = Batch(np.arange(3), 0, 0)
    cells = batch_cells(relevance, None, batch, 0, 0)
    assert side.pool(batch, cells).tolist() == [0, 1, 2, 4, 5]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), negatives=st.integers(1, 5), places=st.integers(1, 6))
def test_lists_by_place_draw_what_a_matrix_of_all_points_draws(seed: int, negatives: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.where(
        rng.random((20, places)) < 0.3, -1, rng.permuted(np.tile(np.arange(13), (20, 1)), axis=1)[:, :places]
    )
    rows, columns = np.nonzero(ids >= 0)
    whole, by_place = shortlist(negatives, seed), shortlist(negatives, seed)
    whole.lists = csr_matrix((np.ones(len(rows), np.float32), (rows, ids[rows, columns])), shape=(20, 13))
    by_place.lists = ids.astype(np.int32)
    for step in range(3):
        batch = Batch(rng.permutation(20)[:9], 1, step)
        cells = batch_cells(matrix(seed, 0.2), None, batch, 1, seed)
        assert np.array_equal(whole.pool(batch, cells), by_place.pool(batch, cells))


def test_a_shortlist_file_that_does_not_fit_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    save_npz(tmp_path / "other.npz", csr_matrix(np.eye(3)))
    with pytest.raises(DataError, match=r"other\.npz is \(3, 3\), this data set needs \(2, 6\)"):
        shortlist(3, 0).load_initial(str(tmp_path / "other.npz"), csr_matrix((2, 6), dtype=bool))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:90])
    for name in ("cut.npz", "absent.npz"):
        with pytest.raises(DataError, match=f"trn_shorty: .*{name} is no sparse matrix"):
            shortlist(3, 0).load_initial(str(tmp_path / name), csr_matrix((2, 6), dtype=bool))
    np.savez(tmp_path / "objects.npz", data=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="no sparse matrix"):
        shortlist(3, 0).load_initial(str(tmp_path / "objects.npz"), csr_matrix((2, 6), dtype=bool))


def test_a_shortlist_from_a_file_loses_the_points_own_labels(tmp_path) -> None:  # type: ignore[no-untyped-def]
    relevance = csr_matrix(np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.float32))
    filters = csr_matrix(np.array([[0, 1, 0, 0], [0, 0, 0, 0]], bool))
    given_lists = np.array([[1, 1, 0.5, 0], [0, 3, 0, 7]], np.float32)
    save_npz(tmp_path / "lists.npz", csr_matrix(given_lists))
    side = shortlist(3, 0)
    side.load_initial(str(tmp_path / "lists.npz"), known_cells(relevance, filters))
    assert isinstance(side.lists, csr_matrix)
    assert side.lists.toarray().tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    save_npz(tmp_path / "own.npz", relevance)
    with pytest.raises(DataError, match=r"own\.npz names no label that is not a point's own"):
        side.load_initial(str(tmp_path / "own.npz"), known_cells(relevance, None))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), negatives=st.integers(1, 5))
def test_a_known_positive_in_the_pool_is_never_a_negative(seed: int, negatives: int) -> None:
    relevance, lists = matrix(seed, 0.2), matrix(seed + 1, 0.4)
    side = shortlist(negatives, seed)
    side.lists = lists.astype(np.float32)
    batch = Batch(np.random.default_rng(seed).permutation(20)[:7], 0, seed)
    cells = batch_cells(relevance, None, batch, 1, seed)
    pool = side.pool(batch, cells)
    named = cells.on_shard(pool, slice(0, len(pool)), CPU)
    for row, point in enumerate(batch.points):
        own = set(relevance[point].indices) & set(pool)
        assert {int(pool[col]) for col in named.cols[named.indptr[row] : named.indptr[row + 1]]} == own
