"""Gradients are bounded by length, by number or by the lengths before; lengths of sparse gradients are true ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dexml.distributed import RowTable, World
from dexml.training.clipping import Clip


def test_clipping_shortens_long_gradients_only_and_tells_the_length() -> None:
    def gradient() -> nn.Parameter:
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([3.0, 4.0])
        return parameter

    for limit, expected in ((1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (0.0, [3.0, 4.0])):
        parameter = gradient()
        assert Clip("norm", limit, [])([parameter], [], World()) == 5.0
        torch.testing.assert_close(parameter.grad, torch.tensor(expected))
    parameter = gradient()
    parameter.grad = torch.tensor([math.inf, 1.0])
    assert not math.isfinite(Clip("norm", 0.0, [])([parameter], [], World()))


def test_parameters_of_this_rank_alone_count_in_the_length_and_are_shortened_too() -> None:
    shared, own = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2, 1))
    shared.grad, own.grad = torch.tensor([2.0]), torch.tensor([[1.0], [2.0]])
    assert Clip("norm", 1.5, [])([shared], [own], World()) == pytest.approx(3.0)
    torch.testing.assert_close(shared.grad, torch.tensor([1.0]))
    torch.testing.assert_close(own.grad, torch.tensor([[0.5], [1.0]]))


@pytest.mark.parametrize(
    ("norms", "limits"),
    [
        (
            [3, 0.5, 0.2, 4, 0.1, 7, 0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 3],
            [*[math.inf] * 5, 5, 5, 5, 5, 5, 5, 1.5, 1.0],
        ),
        ([0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 3], [*[math.inf] * 5, 1.5, 1.0]),
    ],
)
def test_the_adaptive_bound_follows_the_last_five_lengths(norms: list[float], limits: list[float]) -> None:
    clip = Clip("adaptive", 0.0, [])
    for norm, limit in zip(norms, limits, strict=True):
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = torch.tensor([0.6, 0.8]) * norm
        assert clip([parameter], [], World()) == pytest.approx(norm)
        scale = min(1.0, limit / norm)
        torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]) * norm * scale)
    assert clip.kept == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.4])  # the last is no more than twice the longest before


def test_adaptive_clipping_goes_on_from_the_lengths_that_were_kept() -> None:
    first = Clip("adaptive", 0.0, [])
    for norm in (0.3, 0.2, 0.1, 0.1, 0.1, 0.05):
        first.limit(norm)
    assert Clip("adaptive", 0.0, list(first.kept)).limit(3) == pytest.approx(1.0)


def test_a_length_that_is_not_finite_is_not_remembered() -> None:
    clip = Clip("adaptive", 0.0, [1.0] * 5)
    clip.limit(math.nan)
    clip.limit(math.inf)
    assert clip.kept == [1.0] * 5


def sparse_parameter() -> RowTable:
    table = RowTable(torch.zeros(9, 2))
    values = torch.tensor([[0.0, 5.0], [0.0, 7.0]])
    table.grad = torch.sparse_coo_tensor(torch.tensor([[2, 2]]), values, (9, 2), check_invariants=False)
    return table


def test_rows_named_twice_count_as_their_sum() -> None:
    table, dense = sparse_parameter(), nn.Parameter(torch.zeros(2))
    dense.grad = torch.tensor([3.0, 4.0])
    assert Clip("norm", 6.5, [])([dense, table], [], World()) == pytest.approx(13)
    torch.testing.assert_close(dense.grad, torch.tensor([1.5, 2.0]))
    assert table.grad is not None
    assert table.grad.to_dense()[2].tolist() == pytest.approx([0, 6])


def test_value_cuts_every_number_of_dense_and_sparse_gradients() -> None:
    table, dense = sparse_parameter(), nn.Parameter(torch.zeros(3))
    dense.grad = torch.tensor([-0.2, 0.7, -4.0])
    Clip("value", 0.5, [])([dense, table], [], World())
    assert dense.grad.tolist() == pytest.approx([-0.2, 0.5, -0.5])
    assert table.grad is not None
    assert table.grad.to_dense()[2].tolist() == [0, 0.5]
