"""A trained vector for every label, of which each rank holds, updates and saves only its span.

S labels of this rank's span, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from dexml.config import Config, ConfigError
from dexml.distributed import World
from dexml.encoders.text import TextEncoder
from dexml.heads.base import Groups
from dexml.hub.bundle import read_embeddings, read_labels

FASTER = 10  # default of clf_lr over lr
BLOCK = 4096  # labels whose random vectors are drawn at a time
Floats = NDArray[np.float32]


class LabelRows:
    """Vectors as wide as the embeddings of `encoder`, zeros at first."""

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, world: World) -> None:
        self.cfg, self.n_labels, self.span = cfg, n_labels, world.span(n_labels)
        like = next(encoder.parameters())
        size = self.span.stop - self.span.start, encoder.width
        self.weight_SD = Parameter(like.new_zeros(size))
        if cfg.clf_dtype == "bf16":
            self.weight_SD.data = self.weight_SD.data.bfloat16()
            self.weight_SD.grad_dtype = like.dtype
        self.own = {"weight": self.weight_SD}

    def check(self) -> None:
        """Raises ConfigError if there is nothing to learn."""
        if self.n_labels == 1:
            raise ConfigError("net dist-clf-net tells labels apart: there is only one")

    def groups(self) -> Groups:
        lr = self.cfg.clf_lr or FASTER * self.cfg.lr
        place = {"first_row": self.span.start}
        return [{"params": [self.weight_SD], "lr": lr, "weight_decay": self.cfg.weight_decay} | place]

    @torch.no_grad()
    def set(self, value_SD: Tensor) -> None:
        self.weight_SD.copy_(value_SD)

    def add_gradient(self, grad_SD: Tensor) -> None:
        if self.weight_SD.grad is None:
            self.weight_SD.grad = grad_SD
        else:
            self.weight_SD.grad.add_(grad_SD)

    def read_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        """Takes the label embeddings of a bundle; ConfigError unless its labels are these."""
        known = read_labels(folder)
        other = next((i for i, (a, b) in enumerate(zip(known, label_texts, strict=False)) if a != b), None)
        if other is not None or len(known) != self.n_labels:
            where = f"label {other} is another" if other is not None else f"here are {self.n_labels} labels"
            raise ConfigError(
                f"{folder} is a classifier of {len(known)} labels and predicts no others, but {where}: "
                f"evaluate it on data with the labels it was trained with"
            )
        vectors = read_embeddings(folder, self.span)
        if vectors.shape[1] != self.weight_SD.shape[1]:
            raise ConfigError(f"{folder} has a bias for each label, which is for predicting alone: use dexml predict")
        self.set(torch.from_numpy(vectors))


def random_rows(rows: slice, width: int, seed: int) -> Tensor:
    """Rows of a matrix of labels, normally distributed with an expected length of 1; a row is the same in any slice."""
    return drawn_rows(rows, width, seed, lambda rng, shape: rng.standard_normal(shape, np.float32) / np.sqrt(width))


def uniform_rows(rows: slice, width: int, bound: float, seed: int) -> Tensor:
    """Rows of a matrix drawn uniformly from -bound to bound; a row is the same in any slice."""
    return drawn_rows(rows, width, seed, lambda rng, shape: rng.random(shape, np.float32) * (2 * bound) - bound)


def drawn_rows(rows: slice, width: int, seed: int, draw: Callable[[Generator, tuple[int, int]], Floats]) -> Tensor:
    """Rows of a random matrix, each block of them drawn with a generator of its own."""
    first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
    blocks = [draw(np.random.default_rng([seed, i]), (BLOCK, width)) for i in range(first, last)]
    drawn = np.concatenate([*blocks, np.empty((0, width), np.float32)]).astype(np.float32)
    return torch.from_numpy(drawn[rows.start - first * BLOCK : rows.stop - first * BLOCK].copy())
