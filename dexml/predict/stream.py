"""Labels for a stream of texts, part by part: as much memory as one part takes, however long the stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from dexml.predict.batchsize import BatchSize
from dexml.predict.inputs import Item
from dexml.predict.outputs import Found

if TYPE_CHECKING:
    from dexml.hub.bundle import Bundle

BATCHES = 16  # of one part: texts of like length are encoded together
PART = 16384  # most texts of a part


def predicted(
    bundle: Bundle, items: Iterator[Item], k: int, threshold: float | None, size: BatchSize, at_once: bool = False
) -> Iterator[tuple[list[Item], list[Found]]]:
    """Parts of `items` with the labels of each, in their order; an item without a text has none.

    Args:
        at_once: answer every item before the next is asked for.
    """
    while part := list(islice(items, 1 if at_once else min(PART, BATCHES * size.size))):
        texts = [item.text for item in part if item.text]
        found = iter(_found(bundle, texts, k, threshold, size))
        yield part, [next(found) if item.text else [] for item in part]


def _found(bundle: Bundle, texts: list[str], k: int, threshold: float | None, size: BatchSize) -> list[Found]:
    import torch

    while True:
        began = time.perf_counter()
        try:
            found = bundle.find(texts, k, threshold, size.size)
        except torch.OutOfMemoryError:
            if not size.out_of_memory():
                raise
            continue
        size.done(sum(map(len, texts)) / (time.perf_counter() - began))
        return found
