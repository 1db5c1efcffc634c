"""Batches, sampling and chunks: pure functions of (seed, epoch, step, point)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dexml.data.batching import (
    SMALL_CHUNK,
    SMALL_PACK,
    Batch,
    dropout_keys,
    epoch_batches,
    even_chunks,
    hash64,
    length_chunks,
    sample_kept,
    steps_per_epoch,
    take_flat,
    take_padded,
)


def test_hash_is_splitmix64_chained() -> None:
    # M(M(M(M(seed) ^ epoch) ^ sample) ^ i), M one step of the generator
    assert int(hash64(0, 0, 0, 0)) == 0x2130748AAAC80268
    assert int(hash64(6088, 1, 42, 0)) == 0xD422912CE77AD6C3
    order = np.argsort(hash64(0, 0, 0, np.arange(10)))
    assert order.tolist() == [0, 1, 9, 4, 2, 3, 6, 8, 7, 5]


@given(n=st.integers(1, 60), size=st.integers(1, 20), epoch=st.integers(0, 3), data=st.data())
def test_an_epoch_shows_every_point_once_and_can_start_anywhere(n: int, size: int, epoch: int, data) -> None:  # type: ignore[no-untyped-def]
    points = np.arange(100, 100 + n)
    batches = list(epoch_batches(points, size, 3, epoch))
    assert len(batches) == steps_per_epoch(n, size)
    assert sorted(np.concatenate([b.points for b in batches])) == points.tolist()
    assert [b.step for b in batches] == [epoch * len(batches) + i for i in range(len(batches))]
    start = data.draw(st.integers(0, len(batches)))
    resumed = list(epoch_batches(points, size, 3, epoch, start))
    assert [b.points.tolist() for b in resumed] == [b.points.tolist() for b in batches[start:]]


def test_orders_differ_between_epochs_and_seeds() -> None:
    points = np.arange(50)
    orders = {tuple(next(epoch_batches(points, 50, s, e)).points) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


def cells(rows: int = 40, labels: int = 30) -> csr_matrix:
    rng = np.random.default_rng(0)
    dense = rng.random((rows, labels)) * (rng.random((rows, labels)) < 0.3)
    dense[3] = 0
    return csr_matrix(dense.astype(np.float32))


@pytest.mark.parametrize("take", [1, 3, 100])
def test_sampling_keeps_so_many_of_each_row(take: int) -> None:
    matrix = cells()
    kept = sample_kept(matrix, take, 0, Batch(np.arange(40), 0, 0))
    per_row = csr_matrix((kept, matrix.indices, matrix.indptr), matrix.shape).sum(1).A1
    assert per_row.tolist() == np.minimum(np.diff(matrix.indptr), take).tolist()


def test_a_points_draw_does_not_depend_on_the_batch_around_it() -> None:
    matrix, points = cells(), np.arange(40)
    whole = sample_kept(matrix, 2, 0, Batch(points, 1, 9))
    begin = matrix.indptr[10]
    assert np.array_equal(
        sample_kept(matrix[10:25], 2, 0, Batch(points[10:25], 1, 9)), whole[begin : matrix.indptr[25]]
    )
    assert not np.array_equal(sample_kept(matrix, 2, 0, Batch(points, 1, 10)), whole)


def test_draws_follow_relevance() -> None:
    matrix = csr_matrix(np.array([[1.0, 2.0, 5.0]], np.float32))
    draws = [sample_kept(matrix, 1, 0, Batch(np.array([7]), 0, step)) for step in range(4000)]
    share = np.mean(draws, axis=0)
    assert np.abs(share - np.array([1, 2, 5]) / 8).max() < 4 * np.sqrt(0.25 / 4000)


def test_dropout_keys_tell_steps_sides_and_texts_apart() -> None:
    ids = np.arange(500)
    keys = [dropout_keys(s, e, t, side, ids) for s in (0, 1) for e in (0, 1) for t in (0, 1) for side in (0, 1)]
    assert len(np.unique(np.concatenate(keys))) == 16 * 500
    assert np.array_equal(dropout_keys(0, 0, 0, 0, ids[100:]), keys[0][100:])


@settings(max_examples=200)
@given(
    lengths=st.lists(st.integers(1, 64), max_size=300),
    max_rows=st.integers(1, 100),
    budget=st.integers(1, 2000),
)
def test_chunks_hold_every_item_once_within_bounds(lengths: list[int], max_rows: int, budget: int) -> None:
    sizes = np.array(lengths, np.int64)
    chunks = length_chunks(sizes, max_rows, budget)
    assert sorted(np.concatenate([*chunks, []]).astype(int).tolist()) == list(range(len(lengths)))
    for chunk in chunks:
        longest, shortest = sizes[chunk].max(), sizes[chunk].min()
        assert 0 < len(chunk) <= max_rows
        assert len(chunk) == 1 or len(chunk) * longest <= budget
        half_padding = 2 * shortest <= longest - 1
        assert not half_padding or len(chunk) * longest <= SMALL_CHUNK + longest


@settings(max_examples=200)
@given(
    lengths=st.lists(st.integers(1, 64), max_size=300),
    max_rows=st.integers(1, 100),
    budget=st.integers(1, 2000),
    multiple=st.integers(1, 4),
)
def test_even_chunks_hold_every_item_once_near_their_bounds(
    lengths: list[int], max_rows: int, budget: int, multiple: int
) -> None:
    sizes = np.array(lengths, np.int64)
    chunks = even_chunks(sizes, max_rows, budget, multiple)
    order = np.concatenate([*chunks, []]).astype(int)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(sizes[order]) <= 0).all()
    for chunk in chunks:
        cost = np.maximum(sizes[chunk] / budget, 1 / max_rows)
        assert cost[1:-1].sum() <= 1 + 1e-9  # a chunk begins and ends at the middle of an item
    if len(sizes) and max(sizes) * multiple < sizes.sum() / 8 and sizes.sum() >= SMALL_PACK * multiple * len(chunks):
        assert len(chunks) % multiple == 0


def test_laying_end_to_end_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 99, n) for n in (3, 0, 7, 2)]
    flat, offsets = np.concatenate(texts), np.cumsum([0, 3, 0, 7, 2])
    ids, lengths = take_flat(flat, offsets, np.array([2, 1, 3]), pad_id=1)
    assert ids.tolist() == [*texts[2].tolist(), 1, *texts[3].tolist()]
    assert lengths.tolist() == [7, 1, 2]
    ids, lengths = take_flat(flat[:0], np.array([0, 0]), np.array([0]), pad_id=1)
    assert (ids.tolist(), lengths.tolist()) == ([1], [1])


def test_padding_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 99, n) for n in (3, 1, 7, 2)]
    flat, offsets = np.concatenate(texts), np.cumsum([0, 3, 1, 7, 2])
    ids, lengths = take_padded(flat, offsets, np.array([2, 0, 3]), pad_id=1)
    for row, i in enumerate((2, 0, 3)):
        assert ids[row].tolist() == texts[i].tolist() + [1] * (7 - len(texts[i]))
    assert lengths.tolist() == [7, 3, 2]
