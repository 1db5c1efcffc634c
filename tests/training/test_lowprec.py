"""AdamW on bfloat16: unbiased, the same in every shard, as good as float32."""

from __future__ import annotations

import math

import pytest
import torch

from dexml.training.lowprec import RoundedAdamW, rounded


def test_rounding_goes_to_a_neighbour_and_is_right_on_average() -> None:
    x = torch.linspace(-3, 3, 7)[:, None].expand(7, 20000) * 1.001
    found = rounded(x, 0, 1, 1).float()
    up, down = (
        torch.nextafter(x.bfloat16(), torch.tensor(torch.inf)),
        torch.nextafter(x.bfloat16(), -torch.tensor(torch.inf)),
    )
    assert ((found >= down.float()) & (found <= up.float())).all()
    assert len(found[0].unique()) == 2
    torch.testing.assert_close(found.mean(1), x[:, 0], rtol=0, atol=3e-4)


def test_what_is_exact_and_what_is_no_number_stays() -> None:
    x = torch.tensor([[0.0, 1.0, -2.5, math.inf, -math.inf, math.nan]])
    torch.testing.assert_close(rounded(x, 3, 5, 1).float(), x, rtol=0, atol=0, equal_nan=True)


def test_a_row_is_rounded_alike_in_every_shard_and_anew_in_every_update() -> None:
    x = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    whole = rounded(x, 0, 7, 1)
    assert torch.equal(whole[4:], rounded(x[4:], 4, 7, 1))
    assert not torch.equal(whole, rounded(x, 0, 8, 1)) and not torch.equal(whole, rounded(x, 0, 7, 2))


def run(dtype: torch.dtype, steps: int, lr: float) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    """A matrix pulled to a target by noisy gradients."""
    torch.manual_seed(0)
    target = torch.randn(64, 16)
    p = torch.nn.Parameter(torch.ones(64, 16, dtype=dtype))
    if dtype == torch.bfloat16:
        p.grad_dtype = torch.float32
    optimizer = RoundedAdamW([{"params": [p], "lr": lr, "weight_decay": 0.01}])
    for _ in range(steps):
        p.grad = p.detach().float() - target + 0.1 * torch.randn(64, 16)
        optimizer.step()
    return p.detach().float() - target, optimizer


def test_float32_parameters_are_those_of_adamw() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    pair = RoundedAdamW([p], lr=0.1), torch.optim.AdamW([q], lr=0.1)
    for step in range(3):
        p.grad, q.grad = torch.full((3, 2), step - 1.5), torch.full((3, 2), step - 1.5)
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize("lr", [3e-2, 1e-3])
def test_bfloat16_comes_as_near_as_float32(lr: float) -> None:
    steps = int(6 / lr)
    fine, coarse = (float(run(dtype, steps, lr)[0].square().mean().sqrt()) for dtype in (torch.float32, torch.bfloat16))
    assert coarse < fine + 0.01
    # with a rate of 1e-3 a step is below half a unit in the last place of most weights: the nearest would not move


def test_state_survives_a_round_trip() -> None:
    _, optimizer = run(torch.bfloat16, 5, 0.01)
    other = RoundedAdamW([torch.nn.Parameter(torch.ones(64, 16, dtype=torch.bfloat16))])
    other.load_state_dict(optimizer.state_dict())
    (before,), (after,) = optimizer.state.values(), other.state.values()
    assert {name: value.dtype for name, value in after.items()} == {
        "step": torch.float32, "exp_avg": torch.bfloat16, "exp_avg_sq": torch.bfloat16
    }  # fmt: skip
    assert all(torch.equal(before[name], after[name]) for name in before)
