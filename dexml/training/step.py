"""One step: learning rate, the gradient of every part of the batch, one sum over the ranks, update."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dexml.config import Config
from dexml.distributed import GradientReduction, World
from dexml.heads.base import Head, Prepared
from dexml.stopwatch import Stopwatch
from dexml.training.checkpoint import TrainState
from dexml.training.clipping import Clip
from dexml.training.optim import LossScale, effective_lr, make_optimizer, schedule, set_lr

log = logging.getLogger(__name__)
ZERO_LOSSES = 100  # steps in a row with a loss of exactly 0 before training stops


@dataclass(frozen=True)
class StepReport:
    """What a step gave and cost."""

    loss: float
    """Mean over the global batch."""
    norm: float
    """Length of the summed gradient, before clipping."""
    lr: float
    """of the encoder"""
    encoded: dict[str, int]
    """`labels` and `tokens` that this rank encoded."""
    seconds: float
    facts: Mapping[str, float]
    """what else the head tells, of the last part of the batch"""


class Stepper:
    """The optimiser of a head, and the steps it takes.

    Args:
        total: optimiser steps of the whole schedule.
    """

    def __init__(self, cfg: Config, head: Head, world: World, total: int) -> None:
        self.cfg, self.head, self.world, self.total = cfg, head, world, total
        self.shared, self.own = head.shared, list(head.own.values())
        groups = head.param_groups()
        self.peaks = [effective_lr(cfg, world.size, group["lr"]) for group in groups]
        """learning rates, those of the encoder first"""
        self.optimizer = make_optimizer(cfg, groups)
        self.loss_scale = LossScale(on=head.encoder.precision == "fp16")
        self.reduction = GradientReduction(world, self.shared)
        self.watch = Stopwatch(cfg.profile, world.device)

    def step(self, parts: list[Prepared], state: TrainState) -> StepReport:
        """One update from the parts of a batch; counts it in `state`.

        Raises:
            FloatingPointError: loss or gradient is not finite, or the loss has been 0 for long; nothing was updated.
        """
        began = time.perf_counter()
        factor = schedule(state.updates, self.total, self.cfg.warmup, self.cfg.lr_schedule == "constant")
        set_lr(self.optimizer, self.peaks, factor)
        loss, encoded, facts = self._accumulate(parts)
        self._check_loss(loss, state)
        with self.watch.phase("reduce"):
            self.reduction.finish()
        with self.watch.phase("optimiser"):
            norm = self._update(state)
        state.step += 1
        state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
        self.watch.steps += 1
        return StepReport(loss, norm, self.peaks[0] * factor, encoded, time.perf_counter() - began, facts)

    def _accumulate(self, parts: list[Prepared]) -> tuple[float, dict[str, int], Mapping[str, float]]:
        """Adds this rank's gradient of the whole batch; its mean loss, what was encoded, and what the head tells."""
        loss, encoded = 0.0, {"labels": 0, "tokens": 0}
        for part, share in zip(parts, self._shares(parts), strict=True):
            last = part is parts[-1] and self.world.size > 1
            reduction = self.reduction if last else None
            stats = self.head.accumulate(part, share * self.loss_scale.value, self.watch, reduction)
            loss += share * stats.loss
            encoded["labels"] += stats.labels
            encoded["tokens"] += stats.tokens
        return loss, encoded, stats.facts

    def _shares(self, parts: list[Prepared]) -> list[float]:
        """Of each part in the mean over the whole batch, that of all ranks."""
        if len(parts) == 1:
            return [1.0]
        terms = torch.tensor([part.terms for part in parts], dtype=torch.float64, device=self.world.device)
        terms = self.world.sum_(terms)
        return (terms / terms.sum()).tolist()

    def _update(self, state: TrainState) -> float:
        """Unscales, clips and applies the summed gradient; returns its length."""
        if self.loss_scale.on:
            for p in (*self.shared, *self.own):
                p.grad.div_(self.loss_scale.value)  # type: ignore[union-attr]
        norm = Clip.of(self.cfg, state.clip_norms)(self.shared, self.own, self.world)
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
            state.updates += 1
        elif not self.loss_scale.on or self.loss_scale.value < 1:
            raise FloatingPointError(f"step {state.step}: the gradient is not finite; nothing was updated")
        else:
            log.warning("step %d: float16 overflow, update skipped; halving the scale", state.step)
        self.loss_scale.update(finite)
        self.optimizer.zero_grad()
        return norm

    def _check_loss(self, loss: float, state: TrainState) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {state.step}: the loss is {loss}; nothing was updated")
        state.zero_losses = state.zero_losses + 1 if loss == 0 else 0
        if state.zero_losses == ZERO_LOSSES:
            raise FloatingPointError(
                f"the loss was exactly 0 for {ZERO_LOSSES} steps: do all points have the same labels?"
            )


def drops_out(until: float | None, step: int, per_epoch: int) -> bool:
    """Whether a step of an epoch has dropout: up to step `until`, or in a share of the steps if it is below 1."""
    if until is None:
        return True
    return step < until * per_epoch if until < 1 else step <= until
