"""The operations with a backward pass of their own equal what torch makes of the plain formula."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dexml import products
from dexml.encoders import linear
from dexml.encoders.chunkmode import ChunkMode
from dexml.encoders.packing import Packing

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = np.array([4, 4, 1, 3, 3, 3, 5])


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def assert_same(
    found: Callable[..., Tensor], expected: Callable[..., Tensor], inputs: list[Tensor], **near: float
) -> None:
    """In value and in the gradient of every input."""
    ours, theirs = found(*inputs), expected(*inputs)
    torch.testing.assert_close(ours, theirs, **near)
    weight = torch.linspace(-1, 2, ours.numel(), dtype=ours.dtype).view_as(ours)
    pairs = zip(*(torch.autograd.grad((out * weight).sum(), inputs) for out in (ours, theirs)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, **near)


@pytest.fixture(params=[torch.float64, torch.float32, "onednn"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.dtype, dict[str, float]]:
    """Type and tolerance; single precision with either library."""
    if request.param == torch.float64:
        return torch.float64, EXACT
    if request.param == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: request.param == "onednn")
    return torch.float32, SINGLE


@pytest.mark.parametrize("shape", [(7, 6), (1, 7, 6), (1, 1, 6)])
def test_linear(kind: tuple[torch.dtype, dict[str, float]], shape: tuple[int, ...]) -> None:
    dtype, near = kind
    assert_same(linear.Linear.apply, F.linear, leaves(shape, (4, 6), (4,), dtype=dtype), **near)
    without = leaves(shape, (4, 6), dtype=dtype)
    assert_same(lambda x, w: linear.Linear.apply(x, w, None), F.linear, without, **near)


def test_linear_takes_transposed_inputs_and_gradients(kind: tuple[torch.dtype, dict[str, float]]) -> None:
    dtype, near = kind
    inputs = leaves((6, 7), (6, 4), (4,), dtype=dtype)
    assert_same(
        lambda x, w, b: linear.Linear.apply(x.t(), w.t(), b).t(),
        lambda x, w, b: F.linear(x.t(), w.t(), b).t(),
        inputs,
        **near,
    )


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_linear_of_gelu(kind: tuple[torch.dtype, dict[str, float]], approximate: str) -> None:
    dtype, near = kind

    def found(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with ChunkMode(None, packing=Packing(LENGTHS)):
            return F.linear(F.gelu(u, approximate=approximate), weight, bias)

    def expected(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(F.gelu(u, approximate=approximate), weight, bias)

    inputs = leaves((1, 23, 6), (4, 6), (4,), dtype=dtype)
    assert_same(found, expected, inputs, **near)
    assert type(found(*inputs).grad_fn).__name__ == "GeluLinearBackward"


def test_an_activation_that_goes_elsewhere_too_keeps_its_gradient() -> None:
    """gelu(u) also read by another operation, or changed before the linear layer."""

    def twice(u: Tensor, weight: Tensor) -> Tensor:
        active = F.gelu(u)
        return F.linear(active, weight) + active.sum() + F.linear(active * 2, weight)

    def found(u: Tensor, weight: Tensor) -> Tensor:
        with ChunkMode(None, packing=Packing(LENGTHS)):
            return twice(u, weight)

    assert_same(found, twice, leaves((1, 23, 6), (4, 6)), **EXACT)


def by_text(query: Tensor, key: Tensor, value: Tensor, **settings: bool) -> Tensor:
    parts = zip(*(x.split(LENGTHS.tolist(), dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(q, k, v, **settings) for q, k, v in parts], dim=2)


@pytest.mark.parametrize("settings", [{}, {"is_causal": True}, {"enable_gqa": True}], ids=str)
def test_packed_attention(settings: dict[str, bool]) -> None:
    def found(*sides: Tensor) -> Tensor:
        with ChunkMode(None, packing=Packing(LENGTHS)):
            return F.scaled_dot_product_attention(*sides, **settings)

    def expected(*sides: Tensor) -> Tensor:
        return by_text(*sides, **settings)

    heads = 2 if settings.get("enable_gqa") else 4
    n = int(LENGTHS.sum())
    inputs = leaves((1, 4, n, 3), (1, heads, n, 3), (1, heads, n, 3))
    assert_same(found, expected, inputs, **EXACT)
    with torch.no_grad():  # the fused kernel
        torch.testing.assert_close(found(*inputs), expected(*inputs), **EXACT)


def test_packed_attention_drops_what_padded_attention_drops() -> None:
    keys = torch.arange(len(LENGTHS), dtype=torch.int32)
    n = int(LENGTHS.sum())

    def found(*sides: Tensor) -> Tensor:
        with ChunkMode(keys, packing=Packing(LENGTHS)):
            return F.scaled_dot_product_attention(*sides, dropout_p=0.4)

    def expected(*sides: Tensor) -> Tensor:
        parts = zip(keys.split(1), *(x.split(LENGTHS.tolist(), dim=2) for x in sides), strict=True)
        out = []
        for key, *part in parts:
            with ChunkMode(key):
                out.append(F.scaled_dot_product_attention(*part, dropout_p=0.4))
        return torch.cat(out, dim=2)

    assert_same(found, expected, leaves(*[(1, 2, n, 3)] * 3), **EXACT)
