"""Label shards as threads: every rank runs the real code, the collectives meet at a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from dexml.losses import KEPT, Positives, TiledResult


class Meeting:
    def __init__(self, n_ranks: int) -> None:
        self.barrier = threading.Barrier(n_ranks, timeout=30)
        self.slots: list[Tensor] = [torch.empty(0)] * n_ranks

    def exchange(self, rank: int, x: Tensor) -> Tensor:
        self.slots[rank] = x.clone()
        self.barrier.wait()
        stacked = torch.stack(self.slots)
        self.barrier.wait()
        return stacked


class RankComm:
    """What rank sees of the meeting, with the calls it made."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank = meeting, rank
        self.calls: list[tuple[str, int]] = []

    def sum_(self, x: Tensor) -> Tensor:
        self.calls.append(("sum", x.numel()))
        return x.copy_(self.meeting.exchange(self.rank, x).sum(0))

    def max_(self, x: Tensor) -> Tensor:
        self.calls.append(("max", x.numel()))
        return x.copy_(self.meeting.exchange(self.rank, x).amax(0))

    def gather(self, x: Tensor) -> Tensor:
        self.calls.append(("gather", x.numel()))
        return self.meeting.exchange(self.rank, x)


def run_ranks(n_ranks: int, work: Callable[[RankComm], TiledResult]) -> tuple[list[TiledResult], list[RankComm]]:
    """work(comm) on every rank at once; an exception on one of them is raised here."""
    meeting = Meeting(n_ranks)
    comms = [RankComm(meeting, rank) for rank in range(n_ranks)]

    def guarded(comm: RankComm) -> TiledResult:
        try:
            return work(comm)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(n_ranks) as pool:
        futures = [pool.submit(guarded, comm) for comm in comms]
    errors = [f.exception() for f in futures if f.exception() is not None]
    first = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)] or errors
    if first:
        raise first[0]
    return [f.result() for f in futures], comms


def shard(positives: Positives, start: int, stop: int) -> Positives:
    """The entries of columns [start, stop), with local columns and the global counts of kept positives."""
    inside = (positives.cols >= start) & (positives.cols < stop)
    counts = torch.bincount(positives.rows[inside], minlength=positives.n_rows)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Positives(
        indptr,
        positives.cols[inside] - start,
        positives.weights[inside],
        positives.role[inside],
        torch.bincount(positives.rows[positives.role == KEPT], minlength=positives.n_rows),
    )


def join(results: Sequence[TiledResult]) -> tuple[float, Tensor, Tensor]:
    """total, grad_query summed over ranks, grad_label of all labels; the ranks must agree on the total."""
    totals = {float(r.total) for r in results}
    assert len(totals) == 1, totals
    return totals.pop(), sum(r.grad_query for r in results), torch.cat([r.grad_label for r in results])
