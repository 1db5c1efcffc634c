"""Ragged texts through an encoder, chunk by chunk: packed end to end where the model can, padded elsewhere.

On a CPU chunks go through side by side, a few threads each: matrix products of one overlap with memory-bound
work of another, which on cores that share a matrix unit is worth more than splitting every operation.

n texts, B of a chunk, N their tokens together, D embedding width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.data.batching import Ints, even_chunks, length_chunks, take_flat, take_padded
from dexml.encoders.packing import Packing
from dexml.encoders.text import TextEncoder

T = TypeVar("T")
MOST_WORKERS = 4  # each holds a gradient of its own
PACKED_TOKENS = 4096  # of a chunk on a CPU: more are no faster, as what they make no longer fits the caches


class Chunks:
    """Texts [n], text i being `lengths[i]` ids of `flat`, cut for `encoder`.

    Args:
        max_rows, token_budget: most texts and tokens encoded at a time, all workers together.
    """

    def __init__(
        self, encoder: TextEncoder, flat: Ints, lengths: Ints, pad_id: int, max_rows: int, token_budget: int
    ) -> None:
        self.encoder, self.flat, self.pad_id = encoder, flat, pad_id
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.workers, self.threads = workers(encoder)
        self.sizes: Ints = np.maximum(lengths, 1).astype(np.int64)
        """[n] tokens of each text; one of none is a padding token"""
        sizes = self.sizes
        share = max(1, max_rows // self.workers), max(1, token_budget // self.workers)
        if encoder.packs:
            self.parts = even_chunks(sizes, share[0], min(share[1], PACKED_TOKENS), self.workers)
            self.part_tokens = [int(sizes[part].sum()) for part in self.parts]
        else:
            self.parts = length_chunks(sizes, *share)
            self.part_tokens = [len(part) * int(sizes[part[0]]) for part in self.parts]
        self.tokens = sum(self.part_tokens)

    def encode(self, part: Ints, keys: NDArray[np.int32] | None = None, sparse_grad: bool = False) -> Tensor:
        """Embeddings [B, D] of the texts `part`; `keys` [n] are needed in training mode."""
        encoder, device = self.encoder, self.encoder.device
        keys_B = None if keys is None else torch.from_numpy(keys[part]).to(device)
        with _own_numbers(encoder, 0 if keys is None else int(keys[part[0]])):
            if encoder.packs:
                ids, lengths = take_flat(self.flat, self.offsets, part, self.pad_id)
                return encoder.packed(torch.from_numpy(ids).to(device), Packing(lengths), keys_B, sparse_grad)
            ids, lengths = take_padded(self.flat, self.offsets, part, self.pad_id)
            return encoder(torch.from_numpy(ids).to(device), torch.from_numpy(lengths).to(device), keys_B)

    def map(self, work: Callable[[int, int], T]) -> list[T]:
        """`work(i, worker)` for part i = 0, 1, ...; a worker takes every `workers`-th part, in order."""
        grad = torch.is_grad_enabled()

        def share(worker: int) -> list[T]:
            with torch.set_grad_enabled(grad):
                return [work(i, worker) for i in range(worker, len(self.parts), self.workers)]

        busy = min(self.workers, len(self.parts))
        if busy <= 1:
            return [work(i, 0) for i in range(len(self.parts))]
        at_work = [_pool(self.workers, self.threads).submit(share, worker) for worker in range(busy)]
        wait(at_work)
        shares = [done.result() for done in at_work]
        return [shares[i % busy][i // busy] for i in range(len(self.parts))]

    def rows(self, part: Ints) -> Ints:
        """The rows that texts have in what `join` gives: one a text, or one a token of an encoder of states."""
        if not self.encoder.states:
            return part
        ends = np.cumsum(self.sizes[part])
        first = (np.cumsum(self.sizes) - self.sizes)[part]
        return np.repeat(first - (ends - self.sizes[part]), self.sizes[part]) + np.arange(ends[-1])

    def join(self, parts: list[Tensor]) -> Tensor:
        """[n, D] in the order of the texts from the embeddings of each part; of states all tokens, text by text."""
        if not parts:
            dtype = torch.float64 if next(self.encoder.parameters()).dtype == torch.float64 else torch.float32
            return torch.zeros((0, self.encoder.width), device=self.encoder.device, dtype=dtype)
        rows = torch.cat(parts)
        order = torch.from_numpy(np.concatenate([self.rows(part) for part in self.parts])).to(rows.device)
        return torch.empty_like(rows).index_copy(0, order, rows)


@cache
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """Kept: the memory that a thread frees is its own to use again."""
    return ThreadPoolExecutor(workers, "chunks", initializer=torch.set_num_threads, initargs=(threads,))


def workers(encoder: TextEncoder) -> tuple[int, int]:
    """How many chunks go through at once, and the threads of each."""
    if encoder.device.type != "cpu" or encoder.draws:
        return 1, torch.get_num_threads()
    threads = -(-torch.get_num_threads() // MOST_WORKERS)
    return torch.get_num_threads() // threads, threads


@contextlib.contextmanager
def _own_numbers(encoder: TextEncoder, seed: int) -> Iterator[None]:
    """For a model that draws random numbers in ways of its own: the same numbers for the same chunk."""
    if not (encoder.draws and encoder.training):
        yield
        return
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
