"""One thread computes for all requests; those that wait while it is busy are joined into one call.

No request waits for company: an idle thread starts with what is there. So a lone client pays nothing for batching, and
batches grow by themselves with the load.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCH = 128  # items of one call: some tenths of a second for a small encoder on two cores
_NEWEST = 0.2  # weight of the newest call in the mean pace


class Overloaded(Exception):
    """Too much waits already; `retry_after` is when, in whole seconds, it will be done at the present pace."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests: try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class _Job:
    compute: Callable[[list[Any]], list[Any]]
    items: list[Any]
    done: asyncio.Future[list[Any]]


class Worker:
    """Use it inside a running event loop, as a context: `async with Worker(waiting=1000) as worker`."""

    def __init__(self, waiting: int, observe: Callable[[int, float], None] = lambda items, seconds: None) -> None:
        """Takes up to `waiting` items that are not yet computed; `observe` hears items and seconds of every call."""
        self.waiting = waiting
        self.observe = observe
        self.items = 0
        """that wait or are computed now"""
        self._jobs: deque[_Job] = deque()
        self._some = asyncio.Event()
        self._pace = 0.0  # seconds an item
        self._begin: float | None = None  # of the call that runs now
        self._thread = ThreadPoolExecutor(1, "compute", initializer=_all_threads)

    async def __aenter__(self) -> Worker:
        self._loop = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._loop.cancel()
        for job in self._jobs:
            job.done.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def run(self, compute: Callable[[list[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """`compute(items)`, maybe in one call with the items of others who wait for the same `compute`.

        Raises:
            Overloaded: with these items too many would wait; a request alone is always taken.
        """
        if self.items and self.items + len(items) > self.waiting:
            raise Overloaded(max(1, math.ceil(self.items * self._pace)))
        job = _Job(compute, list(items), asyncio.get_running_loop().create_future())
        self.items += len(items)
        self._jobs.append(job)
        self._some.set()
        return await job.done

    @property
    def busy(self) -> float:
        """Seconds that the present call has taken so far."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    async def alone(self, work: Callable[[], Result]) -> Result:
        """`work()` between two calls, never beside one."""
        return (await self.run(lambda _: [work()], [None]))[0]

    async def _work(self) -> None:
        while True:
            await self._some.wait()
            jobs = self._next()
            await self._compute(jobs)
            self.items -= sum(len(job.items) for job in jobs)

    async def _compute(self, jobs: list[_Job]) -> None:
        items = [item for job in jobs for item in job.items]
        self._begin = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, jobs[0].compute, items)
        except Exception as error:
            if len(jobs) == 1 and not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            for job in jobs if len(jobs) > 1 else []:  # one bad item must not fail its neighbours
                await self._compute([job])
        else:
            self._told(len(items), time.monotonic() - self._begin)
            _give(jobs, results)
        finally:
            self._begin = None

    def _next(self) -> list[_Job]:
        """The first job and those of its kind that fit into a call with it; the others keep their order."""
        jobs, room = [self._jobs.popleft()], BATCH
        room -= len(jobs[0].items)
        others: deque[_Job] = deque()
        for job in self._jobs:
            if job.compute == jobs[0].compute and len(job.items) <= room:
                jobs.append(job)
                room -= len(job.items)
            else:
                others.append(job)
        self._jobs = others
        if not others:
            self._some.clear()
        return jobs

    def _told(self, items: int, seconds: float) -> None:
        pace = seconds / max(items, 1)
        self._pace = pace if not self._pace else (1 - _NEWEST) * self._pace + _NEWEST * pace
        self.observe(items, seconds)


def _all_threads() -> None:
    """A thread that Python starts computes alone until it is told how many may help."""
    torch.set_num_threads(torch.get_num_threads())


def _give(jobs: list[_Job], results: list[Any]) -> None:
    """To each job the results of its items."""
    begin = 0
    for job in jobs:
        if not job.done.done():  # else its request was given up
            job.done.set_result(results[begin : begin + len(job.items)])
        begin += len(job.items)
