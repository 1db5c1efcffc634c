"""Optimiser, learning-rate schedule and loss scale, each a small thing of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from dexml.config import Config
from dexml.heads.base import Groups
from dexml.training.lazyadam import LazyAdam
from dexml.training.lowprec import RoundedAdamW


def effective_lr(cfg: Config, world_size: int, lr: float) -> float:
    """A peak learning rate after `lr_scaling`."""
    return lr * {"linear": world_size, "sqrt": math.sqrt(world_size), "none": 1}[cfg.lr_scaling]


def make_optimizer(cfg: Config, groups: Groups) -> torch.optim.Optimizer:
    match cfg.optim:
        case "sgd":
            return torch.optim.SGD(groups)
        case "adam":
            return torch.optim.Adam(groups, eps=cfg.adam_eps, fused=True)
        case "lazyadam":
            return LazyAdam(groups, eps=cfg.adam_eps)
    kind = RoundedAdamW if cfg.clf_dtype == "bf16" else torch.optim.AdamW
    return kind(groups, eps=cfg.adam_eps, fused=True)


def schedule(update: int, total: int, warmup: float, constant: bool = False) -> float:
    """Factor of the learning rate at an update: up linearly over the first share `warmup`, then linearly towards 0,
    or constant."""
    rising = int(warmup * total)
    if update < rising:
        return (update + 1) / (rising + 1)
    if constant:
        return 1.0
    return (total - update) / max(1, total - rising)


def set_lr(optimizer: torch.optim.Optimizer, peaks: Sequence[float], factor: float) -> None:
    """Sets the rate of every group to its peak times `factor`."""
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak * factor


class LossScale:
    """Keeps float16 gradients in range: cached gradients are multiplied by `value`, the summed gradient divided by it.

    Halves when a gradient overflows (that update is skipped on every rank), doubles after `patience` good updates.
    Always 1 when not needed.
    """

    def __init__(self, on: bool, value: float = 2.0**14, patience: int = 1000) -> None:
        self.on, self.value, self.patience, self.good = on, value if on else 1.0, patience, 0

    def update(self, finite: bool) -> None:
        if not self.on:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good % self.patience == 0:
            self.value *= 2

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value, self.good = state["value"], int(state["good"])
