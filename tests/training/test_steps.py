"""One step: accumulation, clipping, loss scale, and stopping before the damage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dexml.heads.base import StepStats
from dexml.training.optim import LossScale, schedule
from dexml.training.step import ZERO_LOSSES
from dexml.training.trainer import Trainer
from tests.training.runs import batches, config, started, weights


@pytest.fixture
def trainer(root: Path, request: pytest.FixtureRequest) -> Trainer:
    return started(config(root, expname=request.node.name.replace("[", "-").replace("]", ""), optim="sgd"))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def inject(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, gradient: float = 0.0, loss: float | None = None) -> None:
    """Adds `gradient` to the first element of the accumulated gradient and replaces the loss."""
    real = trainer.head.accumulate

    def accumulate(*args: Any) -> StepStats:
        stats = real(*args)
        trainer.stepper.shared[0].grad.view(-1)[0] += gradient  # type: ignore[union-attr]
        return stats if loss is None else StepStats(loss, stats.labels, stats.tokens)

    monkeypatch.setattr(trainer.head, "accumulate", accumulate)


def test_two_small_batches_accumulated_equal_a_large_one(root: Path) -> None:
    large = started(config(root, expname="large", optim="sgd", lr=0.3))
    small = started(config(root, expname="small", optim="sgd", lr=0.3, bsz=16, grad_accum=2))
    assert small.total == large.total
    for batch, same_batch in zip(batches(large), batches(small), strict=True):
        large._step(batch)
        small._step(same_batch)
    before = weights(started(config(root, expname="untouched")))
    assert not same(before, weights(large))
    for name, value in weights(large).items():
        torch.testing.assert_close(weights(small)[name], value, rtol=1e-6, atol=1e-6)
    assert small.state.loss_sum == pytest.approx(large.state.loss_sum, rel=1e-6)


def test_the_learning_rate_of_a_step_is_that_of_the_schedule(trainer: Trainer) -> None:
    for number, batch in enumerate(batches(trainer)):
        trainer._step(batch)
        assert trainer.stepper.optimizer.param_groups[0]["lr"] == trainer.stepper.peaks[0] * schedule(
            number, trainer.total, trainer.cfg.warmup
        )
    assert trainer.state.step == trainer.state.updates == trainer.state.loss_count == trainer.per_epoch


def test_a_long_gradient_is_clipped(root: Path) -> None:
    free = started(config(root, expname="free", optim="sgd", weight_decay=0.0))
    clipped = started(config(root, expname="clipped", optim="sgd", weight_decay=0.0, max_grad_norm=0.01))
    moved = []
    for trainer in (free, clipped):
        before = weights(trainer)
        trainer._step(batches(trainer)[0])
        lr = trainer.stepper.optimizer.param_groups[0]["lr"]
        squares = sum(((before[name] - value) / lr).square().sum() for name, value in weights(trainer).items())
        moved.append(float(squares) ** 0.5)
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(0.01, rel=1e-3)


def test_an_overflow_under_a_loss_scale_skips_the_update_and_the_schedule(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.stepper.loss_scale = LossScale(on=True)
    first, second, third, *_ = batches(trainer)
    trainer._step(first)
    before, scale = weights(trainer), trainer.stepper.loss_scale.value
    with monkeypatch.context() as injected:
        inject(trainer, injected, gradient=math.inf)
        trainer._step(second)
    assert same(before, weights(trainer))
    assert (trainer.state.step, trainer.state.updates) == (2, 1)
    assert trainer.stepper.loss_scale.value == scale / 2
    trainer._step(third)
    assert (trainer.state.step, trainer.state.updates) == (3, 2)
    assert trainer.stepper.optimizer.param_groups[0]["lr"] == trainer.stepper.peaks[0] * schedule(
        1, trainer.total, trainer.cfg.warmup
    )
    assert not same(before, weights(trainer))


def test_the_loss_scale_leaves_no_trace_in_the_update(root: Path, trainer: Trainer) -> None:
    scaled = started(config(root, expname="scaled", optim="sgd"))
    scaled.stepper.loss_scale = LossScale(on=True)
    for one in (trainer, scaled):
        one._step(batches(one)[0])
    for name, value in weights(trainer).items():
        torch.testing.assert_close(weights(scaled)[name], value, rtol=1e-6, atol=1e-7)


def test_float16_trains_with_a_loss_scale(root: Path) -> None:
    trainer = started(config(root, expname="half", precision="fp16", bsz=8, gc_bsz=30))
    assert trainer.stepper.loss_scale.on
    before = weights(trainer)
    for batch in batches(trainer)[:2]:
        trainer._step(batch)
    assert trainer.state.updates == 2
    assert all(bool(value.isfinite().all()) for value in weights(trainer).values())
    assert not same(before, weights(trainer))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_any_update(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    before = weights(trainer)
    inject(trainer, monkeypatch, gradient=bad)
    with pytest.raises(FloatingPointError, match="step 0: the gradient is not finite; nothing was updated"):
        trainer._step(batches(trainer)[0])
    assert same(before, weights(trainer))
    assert trainer.state.updates == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_any_update(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    before = weights(trainer)
    inject(trainer, monkeypatch, loss=bad)
    with pytest.raises(FloatingPointError, match=r"step 0: the loss is .*nothing was updated"):
        trainer._step(batches(trainer)[0])
    assert same(before, weights(trainer))


def test_a_hundred_losses_of_zero_in_a_row_stop_the_run(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.head, "accumulate", lambda *args: StepStats(0.0, 1, 1))
    first = batches(trainer)[0]
    for _ in range(ZERO_LOSSES - 1):
        trainer._step(first)
    with pytest.raises(FloatingPointError, match="exactly 0 for 100 steps"):
        trainer._step(first)


def test_one_loss_above_zero_starts_the_count_again(trainer: Trainer) -> None:
    trainer.state.zero_losses = ZERO_LOSSES - 1
    trainer._step(batches(trainer)[0])
    assert trainer.state.zero_losses == 0
