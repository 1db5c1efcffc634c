"""Embedding many texts without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from dexml.data.batching import Ints
from dexml.encoders.chunks import Chunks
from dexml.encoders.text import TextEncoder

BLOCK = 1 << 16  # texts whose token ids are held in memory at once


@contextmanager
def evaluating(encoder: TextEncoder) -> Iterator[None]:
    """Dropout off and no gradients inside, the mode of before after it."""
    training = [module for module in encoder.modules() if module.training]  # none where a service encodes
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def embed(
    encoder: TextEncoder,
    gather: Callable[[Ints], tuple[Ints, Ints]],
    rows: Ints,
    pad_id: int,
    max_rows: int = 1024,
    token_budget: int = 16384,
    advance: Callable[[int], None] = lambda n: None,
) -> Tensor:
    """Embeddings [n, D] of n `rows`, float32 on the encoder's device.

    Args:
        gather: ids of some rows one after the other, and the number of ids of each, as `Tokens.gather`.
        advance: told of how many more are done.
    """
    out = torch.empty((len(rows), encoder.width), device=encoder.device)
    lock = Lock()
    with evaluating(encoder):
        for begin in range(0, len(rows), BLOCK):
            flat, lengths = gather(rows[begin : begin + BLOCK])
            chunks = Chunks(encoder, flat, lengths, pad_id, max_rows, token_budget)

            def encode(i: int, worker: int, begin: int = begin, chunks: Chunks = chunks) -> None:
                part = chunks.parts[i]
                out[torch.from_numpy(begin + part).to(out.device)] = chunks.encode(part).to(out.dtype)
                with lock:
                    advance(len(part))

            chunks.map(encode)
    return out
