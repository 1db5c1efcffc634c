"""Optimiser settings are honoured as written."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from dexml.config import Config
from dexml.heads.base import decayed
from dexml.training.optim import LossScale, effective_lr, make_optimizer, schedule, set_lr


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    for parameter in model.parameters():
        parameter.data.uniform_(1, 2)
        parameter.grad = torch.zeros_like(parameter)
    return model


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_weight_decay_shrinks_matrices_by_lr_times_wd_and_leaves_biases_and_norms(optim: str) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cfg = Config(optim=optim, weight_decay=0.25)  # type: ignore[arg-type]
    make_optimizer(cfg, decayed(model.parameters(), cfg, 0.1)).step()
    for name, value in model.state_dict().items():
        factor = 1 - 0.1 * 0.25 if name in ("0.weight", "1.weight") else 1.0
        torch.testing.assert_close(value, before[name] * factor, rtol=1e-6, atol=0)


def test_no_weight_decay_means_none() -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cfg = Config(weight_decay=0.0)
    make_optimizer(cfg, decayed(model.parameters(), cfg, 0.1)).step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("optim", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_the_optimiser_is_the_one_named(optim: str, kind: str) -> None:
    cfg = Config(optim=optim)  # type: ignore[arg-type]
    optimizer = make_optimizer(cfg, decayed(make_model().parameters(), cfg, 0.1))
    assert type(optimizer).__name__ == kind
    set_lr(optimizer, [0.5, 2.0], 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 1.0]


def test_frozen_parameters_are_left_out() -> None:
    model = make_model()
    model[0].weight.requires_grad = False  # type: ignore[index]
    groups = make_optimizer(Config(), decayed(model.parameters(), Config(), 0.1)).param_groups
    assert sum(len(group["params"]) for group in groups) == 4


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 16), ("sqrt", 4), ("none", 1)])
def test_lr_scaling(scaling: str, factor: float) -> None:
    cfg = Config(lr_scaling=scaling)  # type: ignore[arg-type]
    assert effective_lr(cfg, 16, 1e-4) == pytest.approx(1e-4 * factor)
    assert effective_lr(cfg, 1, 1e-4) == pytest.approx(1e-4)


def test_the_schedule_rises_linearly_to_1_and_falls_linearly_to_the_last_step() -> None:
    factors = [schedule(update, 100, 0.1) for update in range(100)]
    assert factors[:11] == pytest.approx([i / 11 for i in range(1, 12)])
    assert factors[10] == 1 == max(factors)
    falls = {round(a - b, 12) for a, b in pairwise(factors[10:])}
    assert falls == {round(1 / 90, 12)}
    assert factors[-1] == pytest.approx(1 / 90)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 1.0), (7, 0.0), (7, 1.0), (3, 0.1)])
def test_every_update_of_any_schedule_moves(total: int, warmup: float) -> None:
    assert all(0 < schedule(update, total, warmup) <= 1 for update in range(total))


def test_a_constant_rate_rises_and_stays() -> None:
    factors = [schedule(update, 100, 0.1, constant=True) for update in range(100)]
    assert factors[:10] == [schedule(update, 100, 0.1) for update in range(10)]
    assert set(factors[10:]) == {1.0}


@pytest.mark.parametrize("optim", ["adamw", "adam", "lazyadam"])
def test_the_epsilon_is_that_of_the_config(optim: str) -> None:
    cfg = Config(dataset="Toy", optim=optim, adam_eps=1e-3)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1e-3, "weight_decay": 0.0}]
    assert make_optimizer(cfg, groups).param_groups[0]["eps"] == 1e-3


def test_the_loss_scale_halves_on_overflow_and_doubles_after_enough_good_updates() -> None:
    scale = LossScale(on=True, value=8.0, patience=3)
    for finite, expected in ((True, 8), (True, 8), (False, 4), (True, 4), (True, 4), (True, 8), (True, 8)):
        scale.update(finite)
        assert scale.value == expected


def test_the_loss_scale_goes_on_after_a_round_trip() -> None:
    one, two = LossScale(on=True, value=8.0, patience=3), LossScale(on=True, patience=3)
    for _ in range(2):
        one.update(True)
    two.load_state_dict(one.state_dict())
    two.update(True)
    assert two.value == 16


def test_no_loss_scale_is_1_for_ever() -> None:
    scale = LossScale(on=False)
    for finite in (True, False):
        scale.update(finite)
    assert scale.value == 1
