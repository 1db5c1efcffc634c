"""Gradients that leave for other processes during the last chunks are those that would leave after them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from dexml.data.tokens import Tokens
from dexml.distributed import GradientReduction, World
from dexml.encoders import chunks
from dexml.encoders.text import TextEncoder
from dexml.labels.gradsums import GradientSums
from tests.labels.test_gradcache import gradients, parts, side  # noqa: F401


class Recorded(GradientReduction):
    """Keeps what is ready, and when: sends nothing."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(World(), parameters)
        self.found: dict[int, torch.Tensor] = {}

    def ready(self, place: int) -> None:
        assert place not in self.found
        grad = self.parameters[place].grad
        assert grad is not None
        self.found[place] = grad.clone()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 4, 99])
@pytest.mark.parametrize("before", [False, True])
def test_each_gradient_is_ready_once_whole_and_before_the_end(
    parts: tuple[TextEncoder, Tokens],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    rows: int,
    before: bool,
) -> None:
    monkeypatch.setattr(chunks, "workers", lambda encoder: (workers, 1))
    encoder = parts[0]
    embedded, expected = gradients(parts, side(parts, rows, 16384))
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    encoder.zero_grad()
    if before:
        for p in parameters:
            p.grad = torch.ones_like(p)
    reduction, texts = Recorded(parameters), side(parts, rows, 16384)
    weight = torch.linspace(-1, 2, embedded.numel(), dtype=embedded.dtype).view_as(embedded)
    texts.backward(torch.cos(texts.embed()) * weight, reduction)
    assert len(reduction.found) == len(expected) > 20
    named = [(name, p) for name, p in encoder.named_parameters() if p.requires_grad]
    for place, grad in reduction.found.items():
        name, p = named[place]
        assert torch.equal(grad, p.grad)
        torch.testing.assert_close(grad, expected[name] + before, rtol=1e-12, atol=1e-12, msg=name)


def test_hooks_are_gone_after_the_last_chunk_even_when_it_fails() -> None:
    p = nn.Parameter(torch.ones(2))
    sums = GradientSums([p], 1, Recorded([p]))
    with pytest.raises(ZeroDivisionError), sums.last(0):
        raise ZeroDivisionError
    assert not p._backward_hooks


def test_a_parameter_that_the_last_chunk_does_not_touch_keeps_its_sum() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    reduction = Recorded([used, unused])
    sums = GradientSums([used, unused], 1, reduction)
    compute: Callable[[torch.Tensor], tuple] = lambda out: torch.autograd.grad(out, [used, unused], allow_unused=True)  # noqa: E731
    sums.add(0, compute((used * 2 + unused * 3).sum()))
    with sums.last(0):
        sums.add(0, compute((used * 5).sum()))
    sums.into_grad()
    assert list(reduction.found) == [0]
    assert used.grad is not None and unused.grad is not None
    np.testing.assert_array_equal(used.grad, [7, 7])
    np.testing.assert_array_equal(unused.grad, [3, 3])
