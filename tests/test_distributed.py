"""Spans, and what crosses processes with collectives counted; real processes: test_launch, heads/test_ranks."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dexml import distributed
from dexml.distributed import World


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 30])
def test_spans_cover_all_items_once_and_evenly(size: int, n: int) -> None:
    parts = [list(range(n))[World(rank, size).span(n)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_gradients_cross_in_one_collective_and_a_missing_one_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def doubled(x: Tensor, op: Any) -> None:
        sent.append(x.numel())
        x.mul_(2)

    monkeypatch.setattr(distributed.dist, "all_reduce", doubled)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 1))
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = None if i == 2 else torch.full_like(parameter, float(i))
    World(0, 2).sum_gradients_(list(model.parameters()))
    assert sent == [sum(p.numel() for p in model.parameters())]
    for i, parameter in enumerate(model.parameters()):
        assert torch.equal(parameter.grad, torch.full_like(parameter, 0.0 if i == 2 else 2.0 * i))


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
