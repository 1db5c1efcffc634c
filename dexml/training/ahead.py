"""Work on the next item while the current one is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Iterable[T], prepare: Callable[[T], R]) -> Iterator[R]:
    """`prepare(item)` of every item, in order, each made in another thread while the one before it is in use."""
    waiting = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="next-batch") as pool:
        coming = [pool.submit(prepare, item) for _, item in zip(range(1), waiting, strict=False)]
        while coming:
            ready = coming.pop().result()
            coming = [pool.submit(prepare, item) for _, item in zip(range(1), waiting, strict=False)]
            yield ready
