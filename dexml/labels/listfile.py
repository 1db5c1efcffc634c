"""Mined shortlists in a file [N, K] of int32: by point id, best first, -1 behind the last of a row.

It is written block by block and mapped, never loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexml.data.batching import Ints
from dexml.data.rowfile import append_rows, npy_header
from dexml.distributed import World

log = logging.getLogger(__name__)
LISTS, NEXT = "shortlist.npy", "shortlist-next.npy"
"""in use, and found by a search in the background to be used later"""


def write_lists(world: World, path: Path, shape: tuple[int, int], parts: Iterable[Ints]) -> None:
    """Rank 0 writes the lists [N, K] that every rank finds part by part; the file appears when all are there."""
    unfinished, empty = path.with_name(f".{path.name}.tmp"), 0

    def begin() -> None:
        unfinished.unlink(missing_ok=True)  # it may be another name of a file that is in use
        unfinished.write_bytes(npy_header(shape, np.int32))

    world.on_main(begin)
    for ids in parts:
        empty += int((ids[:, 0] < 0).sum())
        world.on_main(partial(append_rows, unfinished, ids.astype(np.int32)))
    world.on_main(lambda: unfinished.replace(path))
    if empty:
        log.info("shortlist: %.1f %% of the points have none", 100 * empty / shape[0])


def map_lists(path: Path) -> NDArray[np.int32]:
    """What `write_lists` left."""
    lists: NDArray[np.int32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return lists
