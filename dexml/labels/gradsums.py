"""Gradients of many chunks, added up by several threads and sent to other processes during the last chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident

import torch
from torch import Tensor

from dexml.distributed import GradientReduction, RowTable


class GradientSums:
    """Gradients of `parameters` that workers add up apart, so that threads do not meet and the order is fixed.

    Args:
        workers: how many there are, each in a thread of its own.
        reduction: is told of a parameter as soon as the last gradient of every worker is in; None: of none.
    """

    def __init__(
        self, parameters: list[torch.nn.Parameter], workers: int, reduction: GradientReduction | None = None
    ) -> None:
        self.parameters, self.workers, self.reduction = parameters, workers, reduction
        self._sums: list[list[Tensor | None]] = [[None] * len(parameters) for _ in range(workers)]
        self._early: set[tuple[int, int]] = set()  # (worker, place) whose last gradient came in by `_arrived`
        self._lock = Lock()

    def add(self, worker: int, gradients: tuple[Tensor | None, ...]) -> None:
        """Takes the gradients of a chunk."""
        for place, grad in enumerate(gradients):
            if grad is not None and (worker, place) not in self._early:
                self._add(worker, place, grad)

    @contextmanager
    def last(self, worker: int) -> Iterator[None]:
        """Around the last backward pass of a worker, in its thread: gradients are taken one by one as they come."""
        thread, handles = get_ident(), []
        if self.reduction is not None:
            hooks = (partial(self._arrived, worker, thread, place) for place in range(len(self.parameters)))
            handles = [p.register_hook(hook) for p, hook in zip(self.parameters, hooks, strict=True)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def into_grad(self) -> None:
        """Adds the sums to `.grad`, which is dense but for a `RowTable`."""
        for place in range(len(self.parameters)):
            self._join(place)

    def _arrived(self, worker: int, thread: int, place: int, grad: Tensor) -> None:
        if self.workers > 1 and get_ident() != thread:  # of another worker's chunk; on a GPU the thread is torch's own
            return
        self._add(worker, place, grad)
        with self._lock:
            self._early.add((worker, place))
            complete = all((other, place) in self._early for other in range(self.workers))
        if complete and self.reduction is not None:
            self._join(place)
            self.reduction.ready(place)

    def _add(self, worker: int, place: int, grad: Tensor) -> None:
        sums = self._sums[worker]
        before = sums[place]
        if before is None:
            sums[place] = grad.clone()
        else:
            sums[place] = before + grad if before.is_sparse else before.add_(grad)

    def _join(self, place: int) -> None:
        p = self.parameters[place]
        for sums in self._sums:
            grad, sums[place] = sums[place], None
            if grad is None:
                continue
            if p.grad is None:
                p.grad = grad.to_dense() if grad.is_sparse and not isinstance(p, RowTable) else grad
            else:
                p.grad = p.grad + grad if isinstance(p, RowTable) else p.grad.add_(grad)
