"""Stochastic weight averaging (arXiv 1803.05407): evaluation and export use the mean of weights of several steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dexml.config import Config
from dexml.heads.base import Head

COUNT = "count"


class Average:
    """The weights as they were when epoch `swa_start` began, and after every step of an epoch from then on whose
    number in it `swa_every` divides, 0 among them. Training goes on from the weights themselves.

    Args:
        per_epoch: steps of an epoch.
    """

    def __init__(self, cfg: Config, head: Head, per_epoch: int) -> None:
        self.every, self.start, self.per_epoch = cfg.swa_every, cfg.swa_start * per_epoch, per_epoch
        self._own = {f"own.{name}": p for name, p in head.own.items()}
        shared = {name: p for name, p in head.model.named_parameters() if p.requires_grad}
        self._weights = self._own | shared
        self._mean: dict[str, Tensor] = {}
        self.n = 0
        """how many are averaged"""

    @torch.no_grad()
    def before(self, step: int) -> None:
        """To be told of every step of the run, counted from 0, before it is taken."""
        if self.every and step == self.start:
            self._mean = {name: p.detach().clone() for name, p in self._weights.items()}
            self.n = 1

    @torch.no_grad()
    def after(self, step: int) -> None:
        """To be told of every step after its update."""
        if self.n and step % self.per_epoch % self.every == 0:
            self.n += 1
            for name, p in self._weights.items():
                self._mean[name].lerp_(p, 1 / self.n)

    @torch.no_grad()
    def install(self) -> None:
        """Puts the average, if there is one, in the place of the weights."""
        for name, mean in self._mean.items():
            self._weights[name].copy_(mean)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The average in the place of the weights inside, the weights bit for bit after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, mean in self._mean.items():
            weight = self._weights[name].clone()
            self._weights[name].copy_(mean)
            mean.copy_(weight)

    # --- in checkpoints ---

    def save(self, folder: Path, rank: int) -> None:
        """Writes what this rank alone holds, rank 0 also what all hold."""
        if self.n:
            held = {name: mean for name, mean in self._mean.items() if rank == 0 or name in self._own}
            save_file(held | {COUNT: torch.tensor(self.n)}, average_path(folder, rank))

    def load(self, folder: Path, rank: int) -> None:
        """Reads what `save` wrote into a checkpoint; without it nothing is averaged yet."""
        self._mean, self.n = {}, 0
        if average_path(folder, 0).exists():
            read = load_file(average_path(folder, 0)) | load_file(average_path(folder, rank))
            self.n = int(read.pop(COUNT))
            self._mean = {name: read[name].to(p) for name, p in self._weights.items()}


def average_path(folder: Path, rank: int) -> Path:
    return folder / f"average-{rank}.safetensors"
