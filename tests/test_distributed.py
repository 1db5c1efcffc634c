"""Spans, and what crosses processes with collectives counted; real processes: test_launch, heads/test_ranks."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dexml import distributed
from dexml.distributed import GradientReduction, World
from tests.helpers.processes import run_ranks


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 30])
def test_spans_cover_all_items_once_and_evenly(size: int, n: int) -> None:
    parts = [list(range(n))[World(rank, size).span(n)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


class Doubled:
    """Stands for two ranks with the same gradients: a sum that is done when it is waited for."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def wait(self) -> None:
        self.x.mul_(2)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was sent, in order."""
    sizes: list[int] = []

    def all_reduce(x: Tensor, async_op: bool) -> Doubled:
        assert async_op
        sizes.append(x.numel())
        return Doubled(x)

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    return sizes


@pytest.fixture
def model() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 1))
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = None if i == 2 else torch.full_like(parameter, float(i))
    return model


def test_gradients_cross_once_in_a_few_parts_and_a_missing_one_is_zero(sent: list[int], model: nn.Module) -> None:
    parameters = list(model.parameters())
    GradientReduction(World(0, 2), parameters).finish()
    assert len(sent) <= GradientReduction.PARTS
    assert sum(sent) == sum(p.numel() for p in parameters)
    for i, parameter in enumerate(parameters):
        assert torch.equal(parameter.grad, torch.full_like(parameter, 0.0 if i == 2 else 2.0 * i))


@pytest.mark.parametrize("order", [range(6), reversed(range(6)), [3, 0, 5, 1, 4, 2]], ids=["first", "last", "mixed"])
def test_parts_leave_in_one_order_whatever_becomes_ready_first(
    sent: list[int], model: nn.Module, order: Iterable[int]
) -> None:
    parameters = list(model.parameters())
    reduction = GradientReduction(World(0, 2), parameters)
    for place in order:
        reduction.ready(place)
    early, sent[:] = list(sent), []
    assert sum(early) == sum(p.numel() for p in parameters)
    for _ in range(2):  # the next step begins anew
        reduction.finish()
    assert sent == early


def test_a_part_leaves_as_soon_as_its_last_gradient_is_ready(sent: list[int], model: nn.Module) -> None:
    parameters = list(model.parameters())
    reduction = GradientReduction(World(0, 2), parameters)
    reduction.ready(0)
    assert sent == []
    for place in (5, 4, 3, 2):
        reduction.ready(place)
    assert 0 < sum(sent) < sum(p.numel() for p in parameters)


def test_alone_nothing_is_sent_and_nothing_copied(sent: list[int], model: nn.Module) -> None:
    gradients = [p.grad for p in model.parameters()]
    GradientReduction(World(), list(model.parameters())).finish()
    assert sent == []
    assert all(p.grad is grad for p, grad in zip(model.parameters(), gradients, strict=True) if grad is not None)
    assert all(p.grad is not None for p in model.parameters())


class Awkward(Exception):
    def __init__(self, *, response: str) -> None:
        super().__init__(f"no answer: {response}")


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Awkward(response="late")))
    told = distributed._portable(Awkward(response="late"))
    assert isinstance(told, RuntimeError)
    assert str(told) == "Awkward: no answer: late"
    assert isinstance(distributed._portable(KeyError("x")), KeyError)


def test_alone_every_collective_is_the_identity() -> None:
    world, x = World(), torch.arange(6.0).view(3, 2)
    assert world.sum_(x) is x
    assert world.gather_rows(x, 3) is x
    assert world.scatter_rows_sum(x) is x
    assert torch.equal(world.gather(x), x[None])
    assert world.broadcast("word") == "word"
    assert world.gather_objects(7) == [7]
    with pytest.raises(ZeroDivisionError):
        world.on_main(lambda: 1 // 0)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are told by name on Linux")
def test_nothing_of_the_group_is_left_after_leaving() -> None:
    assert [output.splitlines()[-1] for output in run_ranks(2, "tests.helpers.leaving")] == ["left: []"] * 2
