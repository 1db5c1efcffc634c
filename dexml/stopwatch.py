"""Where the seconds of a training step go: the key `profile`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PHASES = (
    "wait",
    "encode queries",
    "choose labels",
    "encode labels",
    "move labels",
    "loss",
    "backward queries",
    "backward labels",
    "reduce",
    "optimiser",
)
"""`wait` is for the next batch and, in `reduce`, for slower ranks; what no phase covers is told as `other`."""


class Stopwatch:
    """Adds up the seconds of phases that do not overlap. Off, it costs nothing and tells nothing.

    On CUDA a phase waits for its kernels, which makes steps a little slower than without a profile.
    """

    def __init__(self, on: bool = False, device: torch.device | None = None) -> None:
        self.on, self.device = on, device
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.steps = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        began = self._now()
        try:
            yield
        finally:
            self.seconds[name] += self._now() - began

    def lap(self, seconds: float) -> dict[str, float]:
        """Mean seconds a step of every phase since the last lap, of steps that took `seconds` together; starts anew."""
        steps = max(1, self.steps)
        shares = {name: spent / steps for name, spent in self.seconds.items()}
        shares["other"] = max(0.0, seconds / steps - sum(shares.values()))
        self.seconds, self.steps = dict.fromkeys(PHASES, 0.0), 0
        return shares

    def _now(self) -> float:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def in_words(shares: dict[str, float]) -> str:
    """`2.31 s a step: encode queries 31 %, ...`, the largest first, without what is below half a per cent."""
    total = sum(shares.values())
    parts = sorted(shares.items(), key=lambda share: -share[1])
    told = ", ".join(f"{name} {100 * spent / total:.0f} %" for name, spent in parts if spent > 0.005 * total)
    return f"{total:.3g} s a step: {told}"
