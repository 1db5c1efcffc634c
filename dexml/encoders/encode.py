"""Embedding many texts without gradients: sorted by length within blocks, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from dexml.data.batching import Ints, length_chunks, take_padded
from dexml.data.tokens import Tokens
from dexml.encoders.text import TextEncoder

BLOCK = 1 << 16  # texts whose token ids are held in memory at once


@contextmanager
def evaluating(encoder: TextEncoder) -> Iterator[None]:
    """Dropout off and no gradients inside, the mode of before after it."""
    mode = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        encoder.train(mode)


def embed_rows(
    encoder: TextEncoder,
    tokens: Tokens,
    rows: Ints,
    max_rows: int = 1024,
    token_budget: int = 16384,
    advance: Callable[[int], None] = lambda n: None,
) -> Tensor:
    """Embeddings [n, D] of rows [n] of a token store, float32 on its device; `advance(k)` tells of k more done."""
    out = torch.empty((len(rows), encoder.width), device=encoder.device)
    with evaluating(encoder):
        for begin in range(0, len(rows), BLOCK):
            flat, lengths = tokens.gather(rows[begin : begin + BLOCK])
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            for chunk in length_chunks(lengths.astype(np.int64), max_rows, token_budget):
                padded = take_padded(flat, offsets, chunk, tokens.pad_id)
                ids, sizes = (torch.from_numpy(array).to(out.device) for array in padded)
                out[torch.from_numpy(begin + chunk).to(out.device)] = encoder(ids, sizes).to(out.dtype)
                advance(len(chunk))
    return out
