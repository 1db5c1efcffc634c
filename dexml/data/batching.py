"""Which points and positives a step sees, and how texts are cut into chunks. Everything here is a pure function of
(seed, epoch, step, point), so any number of processes, started or resumed anywhere, draws the same.

G queries of the global batch, L labels, nnz relevant cells of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Ints = NDArray[np.int64]
SMALL_CHUNK = 2048  # padded tokens; below this, work on the weights outweighs work on the tokens
SMALL_PACK = 512  # the same for packed tokens
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One SplitMix64 step (Steele et al., OOPSLA 2014): a counter in, 64 well-mixed bits out."""
    x = x + GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash64(*words: int | Ints) -> NDArray[np.uint64]:
    """A 64-bit hash of the words, element by element."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = mix64(state ^ np.asarray(word, np.int64).astype(np.uint64))
    return state


def dropout_keys(seed: int, epoch: int, step: int, side: int, ids: Ints) -> NDArray[np.int32]:
    """The dropout key of each text in this step; `side` tells queries (0) from labels (1)."""
    return (hash64(seed, epoch, step, side, ids) >> np.uint64(32)).astype(np.uint32).view(np.int32)


@dataclass(frozen=True)
class Batch:
    """The global batch of one step: the same on every rank."""

    points: Ints
    """[G] rows of the training split."""
    epoch: int
    step: int
    """Number of the step in the run, from 0."""

    def split(self, size: int) -> list[Batch]:
        """The same step in parts of `size` points, for gradient accumulation."""
        return [Batch(self.points[i : i + size], self.epoch, self.step) for i in range(0, len(self.points), size)]


def epoch_batches(points: Ints, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
    """The batches of an epoch from number `start` on: `points` in an order drawn from (seed, epoch), cut into `size`
    each; the last may be short."""
    order = np.random.default_rng([seed, epoch]).permutation(points)
    per_epoch = steps_per_epoch(len(points), size)
    for i in range(start, per_epoch):
        yield Batch(order[i * size : (i + 1) * size], epoch, epoch * per_epoch + i)


def steps_per_epoch(n_points: int, size: int) -> int:
    return -(-n_points // size)


def sample_kept(cells: csr_matrix, take: int, seed: int, batch: Batch) -> NDArray[np.bool_]:
    """Marks `take` cells of each row of `cells` [G, L] (all, where a row has fewer), drawn without replacement with
    probability proportional to their values.

    An exponential clock of rate r rings on each cell and the first `take` of a row are kept (Efraimidis and Spirakis
    2006). The clocks depend on (seed, epoch, step, point, label) alone.
    """
    rows = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
    bits = hash64(seed, batch.epoch, batch.step, batch.points[rows], cells.indices.astype(np.int64))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    clock = -np.log(uniform) / cells.data
    order = np.lexsort((clock, rows))
    rank = np.arange(len(rows)) - cells.indptr[rows]  # rows[order] == rows: place of each sorted cell in its row
    kept = np.zeros(len(rows), bool)
    kept[order[rank < take]] = True
    return kept


def length_chunks(lengths: Ints, max_rows: int, token_budget: int) -> list[Ints]:
    """Cuts items into chunks of similar length: at most `max_rows` items and, padded, `token_budget` tokens each.

    A chunk ends where an item would be half padding, unless the chunk is still too small to keep a processor busy.
    Returns positions into `lengths`, longest chunk first, so that memory peaks at the first chunk.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = -lengths[order]  # ascending, for searchsorted
    chunks: list[Ints] = []
    begin = 0
    while begin < len(order):
        longest = max(1, int(-falling[begin]))
        most = max(1, min(max_rows, token_budget // longest))
        least = min(most, -(-SMALL_CHUNK // longest))
        similar = int(np.searchsorted(falling, -(longest // 2), side="left")) - begin
        end = begin + min(most, max(least, similar))
        chunks.append(order[begin:end])
        begin = end
    return chunks


def even_chunks(lengths: Ints, max_rows: int, token_budget: int, multiple: int = 1) -> list[Ints]:
    """Cuts items, longest first, into chunks of about equal cost: about `max_rows` items or `token_budget` tokens.

    Their number is a multiple of `multiple`, unless they would be too small to keep a processor busy.
    """
    order = np.argsort(-lengths, kind="stable")
    cost = np.maximum(lengths[order] / token_budget, 1 / max_rows)
    least = max(1, math.ceil(cost.sum()))
    parts = max(least, min(-(-least // multiple) * multiple, int(lengths.sum()) // SMALL_PACK))
    place = ((np.cumsum(cost) - cost / 2) * (parts / cost.sum())).astype(np.int64) if len(cost) else order
    return [part for part in np.split(order, np.flatnonzero(np.diff(place)) + 1) if len(part)]


def take_flat(flat: Ints, offsets: Ints, rows: Ints, pad_id: int) -> tuple[Ints, Ints]:
    """Rows of a ragged array end to end: ids [N] and lengths [B]; an empty row becomes one `pad_id`."""
    found = offsets[rows + 1] - offsets[rows]
    lengths = np.maximum(found, 1)
    ends = np.cumsum(lengths)
    place = np.repeat(offsets[rows] - (ends - lengths), lengths) + np.arange(ends[-1])
    empty = np.repeat(found == 0, lengths)
    return np.where(empty, pad_id, flat[np.where(empty, 0, place)] if len(flat) else pad_id).astype(np.int64), lengths


def take_padded(flat: Ints, offsets: Ints, rows: Ints, pad_id: int) -> tuple[Ints, Ints]:
    """Rows of a ragged array (row i: flat[offsets[i]:offsets[i+1]]): ids [B, T] padded on the right, lengths [B]."""
    lengths = offsets[rows + 1] - offsets[rows]
    place = np.arange(int(lengths.max(initial=1)))
    real = place < lengths[:, None]
    ids = np.full(real.shape, pad_id, np.int64)
    ids[real] = flat[(offsets[rows][:, None] + place)[real]]
    return ids, lengths
