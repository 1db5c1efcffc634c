"""Every collective of the project; with one process each of them is the identity.

Gradients and losses here are sums over the global batch that are already divided by its size, so ranks only ever
add: nothing is divided by the number of processes.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# transformers imports it later, when its default arguments would hold the process group: `leave` could not end that,
# and a thread of it that is still busy when the interpreter goes would end the process with an error
import torch.distributed.nn.functional
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor

# torch 2.13 renamed both
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

T = TypeVar("T")
WORLD_SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
ROWS_AT_ONCE = 1 << 14
RECIPE = "accelerate launch --config_file configs/accelerate-cpu.yaml --num_processes N train.py ..."


class LaunchError(RuntimeError):
    """The launcher started another number of processes than was asked for."""


def launch(num_processes: int = 0, **kwargs: Any) -> Accelerator:
    """The Accelerator of this process, once the world is known to be the one asked for.

    Args:
        num_processes: processes wanted; 0 takes what the launcher was asked for.
        kwargs: passed on to `Accelerator`.
    Raises:
        LaunchError: fewer or more processes joined than asked for (`accelerate launch --cpu --num_processes 2` and
            MULTI_CPU configs start a single one without a word).
    """
    asked = next((int(os.environ[name]) for name in WORLD_SIZE_VARIABLES if os.environ.get(name)), None)
    lost = asked is None and "MASTER_ADDR" in os.environ  # several were asked for, a plain process was started
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[timeout], **kwargs)
    joined = accelerator.num_processes
    if lost and joined == 1:
        raise LaunchError(
            f"the launcher was asked for several processes but started one; use: {RECIPE} "
            f"(told from MASTER_ADDR without WORLD_SIZE: unset MASTER_ADDR if one process is meant)"
        )
    if joined != (num_processes or asked or joined) or joined != (asked or joined):
        raise LaunchError(f"{num_processes or asked} processes were asked for, {joined} joined; use: {RECIPE}")
    return accelerator


@dataclass(frozen=True)
class World:
    """This process among all: its rank, the number of processes and the device its tensors live on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, accelerator: Accelerator) -> World:
        return cls(accelerator.process_index, accelerator.num_processes, accelerator.device)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def span(self, n: int) -> slice:
        """The contiguous part of n items that this rank owns; parts differ by one item at most, and may be empty."""
        return slice(*self.bounds(n)[self.rank : self.rank + 2])

    def bounds(self, n: int) -> list[int]:
        """Where each rank's part of n items begins, and n."""
        return [r * n // self.size for r in range(self.size + 1)]

    def sum_(self, x: Tensor) -> Tensor:
        """Adds x over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x, op=dist.ReduceOp.SUM)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """x of every rank, of one shape everywhere: [W, *x.shape]."""
        if self.size == 1:
            return x.unsqueeze(0)
        out = x.new_empty((self.size, *x.shape))
        _all_gather(out.view(-1), x.contiguous().view(-1))
        return out

    def gather_rows(self, x: Tensor, n: int) -> Tensor:
        """Joins the spans of n rows that the ranks hold: [n, ...] on every rank."""
        if self.size == 1:
            return x
        bounds = self.bounds(n)
        padded = x.new_zeros((n // self.size + 1, *x.shape[1:]))
        padded[: len(x)] = x
        parts = self.gather(padded)
        return torch.cat([parts[r, : bounds[r + 1] - bounds[r]] for r in range(self.size)])

    def rows_to_main(self, x: Tensor, n: int, take: Callable[[Tensor], None]) -> None:
        """Hands `take` on rank 0 the n rows whose spans the ranks hold, in order, a block at a time.

        An exception of it reaches every rank.
        """
        for owner, (first, last) in enumerate(pairwise(self.bounds(n))):
            for begin in range(first, last, ROWS_AT_ONCE):
                size = min(ROWS_AT_ONCE, last - begin)
                rows = x[begin - first :][:size] if self.rank == owner else x.new_empty((size, *x.shape[1:]))
                self.on_main(partial(take, self._to_main(rows, owner)))

    def _to_main(self, rows: Tensor, owner: int) -> Tensor:
        """On rank 0 the rows of the owner; the others give rows of that shape, too."""
        if owner > 0:
            rows = rows.to(self.device).contiguous()
            if self.rank == owner:
                dist.send(rows, 0)
            elif self.is_main:
                dist.recv(rows, owner)
        return rows

    def scatter_rows_sum(self, x: Tensor) -> Tensor:
        """Adds x [n, ...] over the ranks; each gets its own span of the rows."""
        if self.size == 1:
            return x
        bounds = self.bounds(len(x))
        padded = x.new_zeros((self.size, len(x) // self.size + 1, *x.shape[1:]))
        for r in range(self.size):
            padded[r, : bounds[r + 1] - bounds[r]] = x[bounds[r] : bounds[r + 1]]
        out = torch.empty_like(padded[0])
        _reduce_scatter(out.view(-1), padded.view(-1))
        return out[: bounds[self.rank + 1] - bounds[self.rank]]

    def sum_sparse(self, x: Tensor) -> Tensor:
        """Adds sparse tensors with any rows [R, ...] over the ranks: coalesced, the same on every rank."""
        x = x.coalesce()
        if self.size == 1:
            return x
        counts = self.gather(torch.tensor(x._nnz(), device=x.device)).tolist()
        most = max(counts)

        def all_of(part: Tensor) -> Tensor:
            padded = part.new_zeros((most, *part.shape[1:]))
            padded[: len(part)] = part
            return torch.cat([rows[:n] for rows, n in zip(self.gather(padded), counts, strict=True)])

        rows, values = all_of(x.indices()[0]), all_of(x.values())
        return torch.sparse_coo_tensor(rows[None], values, x.shape, check_invariants=False).coalesce()

    def gather_rows_grad(self, x: Tensor, n: int) -> Tensor:
        """As `gather_rows`, differentiable: x receives the sum over the ranks of what each does with its rows."""
        return x if self.size == 1 else _GatherRows.apply(x, n, self)

    def broadcast(self, value: T) -> T:
        """Rank 0's value of a small picklable object, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather_objects(self, value: T) -> list[T]:
        """The small picklable object of every rank, by rank."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def on_main(self, work: Callable[[], T]) -> T:
        """Runs `work` on rank 0 alone and hands its result, or its exception, to every rank."""
        outcome: tuple[T | None, Exception | None] = (None, None)
        if self.is_main:
            try:
                outcome = (work(), None)
            except Exception as error:
                if self.size == 1:
                    raise
                outcome = (None, _portable(error))
        result, problem = self.broadcast(outcome)
        if problem is not None:
            raise problem
        return result  # type: ignore[return-value]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int, world: World) -> Tensor:
        ctx.world = world
        return world.gather_rows(x, n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.world.scatter_rows_sum(grads[0]), None, None


class RowTable(torch.nn.Parameter):
    """A table that every rank holds and of which a step touches few rows: its gradient is sparse and names them."""

    def no_rows(self) -> Tensor:
        """The gradient of a step that touches none."""
        rows, values = torch.zeros(1, 0, dtype=torch.int64, device=self.device), self.detach()[:0]
        return torch.sparse_coo_tensor(rows, values, self.shape, is_coalesced=True, check_invariants=False)


class GradientReduction:
    """The sum of gradients over the ranks, begun while later gradients are still being computed.

    They cross in a few parts, from the last parameter to the first as a backward pass goes: in that order on every
    rank, whatever order they become ready in. With one process nothing is copied.
    """

    PARTS = 4

    def __init__(self, world: World, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.world, self.parameters, self._lock = world, list(parameters), Lock()
        self._parts: list[list[int]] = [[] for _ in range(self.PARTS)]
        total, before = sum(p.numel() for p in self.parameters), 0
        for place in reversed(range(len(self.parameters))):
            if not isinstance(self.parameters[place], RowTable):
                self._parts[self.PARTS * before // total].append(place)
            before += self.parameters[place].numel()
        self._begin()

    def _begin(self) -> None:
        self._ready: set[int] = set()
        self._sent: list[tuple[list[torch.nn.Parameter], Tensor, Any]] = []

    def ready(self, place: int) -> None:
        """`.grad` of the parameter at `place` is all that this rank adds; None counts as zero."""
        with self._lock:
            self._ready.add(place)
            while len(self._sent) < self.PARTS and self._ready.issuperset(self._parts[len(self._sent)]):
                self._send([self.parameters[i] for i in self._parts[len(self._sent)]])

    def _send(self, part: list[torch.nn.Parameter]) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in part]
        flat = torch.cat([grad.reshape(-1) for grad in gradients]) if part else torch.empty(0)
        self._sent.append((part, flat, dist.all_reduce(flat, async_op=True) if part else None))

    def finish(self) -> None:
        """Leaves the sum over the ranks in every `.grad`."""
        for place, p in enumerate(self.parameters):
            if p.grad is None:
                p.grad = p.no_rows() if isinstance(p, RowTable) else torch.zeros_like(p)
            if self.world.size > 1:
                self.ready(place)
        for part, flat, work in self._sent:
            if work is not None:
                work.wait()
            for p, grad in zip(part, flat.split([p.numel() for p in part]), strict=True):
                p.grad = grad.view_as(p)
        for p in self.parameters:
            if isinstance(p, RowTable):
                p.grad = self.world.sum_sparse(p.grad)  # type: ignore[arg-type]
        self._begin()


def _portable(error: Exception) -> Exception:
    """The exception, if it survives the way to another process, else one that says the same."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def leave() -> None:
    """Ends this process's part in the group, so that no rank waits for it at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()
