import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexml.encoders.chunkmode import ChunkMode


def keys(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def mask(keys_B: Tensor, *shape: int, p: float = 0.3, site: int = 0) -> Tensor:
    return ChunkMode(keys_B, site).scaled_mask(torch.zeros(len(keys_B), *shape), p)


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)])
def test_a_mask_belongs_to_the_key_whatever_the_batch_the_order_and_the_padded_width(trailing: tuple[int, ...]) -> None:
    wide = mask(keys(5, -7, 123456789), 9, *trailing)
    alone = mask(keys(123456789), 4, *trailing)
    assert torch.equal(wide[2:, :4], alone)
    assert torch.equal(mask(keys(-7, 5), 6, *trailing), wide[[1, 0], :6])


def test_attention_masks_do_not_depend_on_the_padded_width() -> None:
    assert torch.equal(mask(keys(5, 6), 2, 9, 9)[:, :, :4, :4], mask(keys(5, 6), 2, 4, 4))


def test_masks_differ_between_keys_sites_and_positions() -> None:
    first, second = mask(keys(1, 2), 40, 16)
    assert 0.3 < (first != second).float().mean() < 0.55  # independent: 2 * 0.3 * 0.7 = 0.42
    assert 0.3 < (mask(keys(1), 40, 16, site=1) != first).float().mean() < 0.55
    assert 0.3 < (first[1:] != first[:-1]).float().mean() < 0.55
    assert 0.3 < (first[:, 1:] != first[:, :-1]).float().mean() < 0.55


def test_each_dropout_of_a_forward_pass_is_a_site_of_its_own() -> None:
    x = torch.ones(2, 30)
    with ChunkMode(keys(1, 2)) as drop:
        first, second = F.dropout(x, 0.5), F.dropout(x, 0.5)
    assert drop.site == 2
    assert torch.equal(second, mask(keys(1, 2), 30, p=0.5, site=1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_the_rate_is_p_and_what_is_kept_is_scaled(p: float) -> None:
    rows = 64
    found = mask(torch.arange(rows, dtype=torch.int32), 40, 50, p=p)
    n = found.numel()
    dropped = (found == 0).sum().item()
    assert abs(dropped - n * p) < 4 * math.sqrt(n * p * (1 - p))
    torch.testing.assert_close(found[found != 0], torch.full((int(n - dropped),), 1 / (1 - p)))
    per_row = (found == 0).flatten(1).float().mean(1)
    assert (per_row - p).abs().max() < 5 * math.sqrt(p * (1 - p) / 2000)


def test_neighbouring_keys_drop_independently() -> None:
    dropped = (mask(torch.arange(200, dtype=torch.int32), 500, p=0.5) == 0).double()
    correlation = torch.corrcoef(dropped).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / math.sqrt(500)


def test_function_and_module_equal_the_plain_formula_in_value_and_gradient() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    expected = (mask(keys(1, 2, 3), 5, 4) != 0).double() / 0.7
    for drop in (lambda x: F.dropout(x, 0.3), lambda x: F.dropout(x, p=0.3, training=True), nn.Dropout(0.3)):
        with ChunkMode(keys(1, 2, 3)):
            out = drop(x)
        torch.testing.assert_close(out, x * expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], expected, rtol=1e-12, atol=0)


def test_nothing_is_dropped_outside_training_or_at_p_0_and_all_at_p_1() -> None:
    x = torch.randn(2, 5)
    with ChunkMode(keys(1, 2)):
        assert torch.equal(F.dropout(x, 0.3, training=False), x)
        assert torch.equal(nn.Dropout(0.3).eval()(x), x)
        assert torch.equal(F.dropout(x, 0.0), x)
        assert torch.equal(F.dropout(x, 1.0), torch.zeros(2, 5))


def test_a_tensor_whose_first_axis_is_not_the_batch_is_refused() -> None:
    with ChunkMode(keys(1, 2)), pytest.raises(ValueError, match=r"\(6, 4\).*batch of 2 texts; set tf_dropout: 0"):
        F.dropout(torch.zeros(6, 4), 0.3)


@pytest.mark.parametrize("wrong", [torch.tensor([1, 2]), torch.tensor([[1]], dtype=torch.int32)])
def test_keys_of_another_type_or_shape_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"int32 \[B\]"):
        ChunkMode(wrong)


def naive_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, bias: Tensor, drop: Tensor, scale: float
) -> Tensor:
    """[heads, T, d] of one text, one head and one query at a time."""
    out = torch.zeros_like(q)
    for head in range(q.shape[0]):
        for i in range(q.shape[1]):
            scores = (k[head] @ q[head, i]) * scale + bias[i]
            weights = torch.where(allowed[i], scores, -torch.inf).softmax(-1)
            out[head, i] = (weights * drop[head, i]) @ v[head]
    return out


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bool mask": {"attn_mask": torch.tensor([True, True, False, True, False])[None, None, None]},
    "float mask": {"attn_mask": torch.linspace(-3, 2, 25, dtype=torch.float64).view(1, 1, 5, 5)},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.7},
    "gqa": {"enable_gqa": True},
}


@pytest.mark.parametrize("case", CASES)
def test_attention_with_dropout_equals_the_plain_formula(case: str) -> None:
    torch.manual_seed(0)
    settings = CASES[case]
    q, k, v = torch.randn(3, 2, 4, 5, 6, dtype=torch.float64)
    if case == "gqa":
        k, v = k[:, :2], v[:, :2]
    with ChunkMode(keys(1, 2)):
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25, **settings)
    drop = ChunkMode(keys(1, 2)).scaled_mask(torch.zeros(2, 4, 5, 5, dtype=torch.float64), 0.25)
    given = settings.get("attn_mask", torch.ones(5, 5, dtype=torch.bool))
    is_bool = given.dtype == torch.bool
    allowed = (given if is_bool else torch.ones(5, 5, dtype=torch.bool)).expand(1, 1, 5, 5)[0, 0]
    allowed = allowed.tril() if case == "causal" else allowed
    bias = torch.zeros(5, 5, dtype=torch.float64) if is_bool else given[0, 0]
    for row in range(2):
        heads = [0, 0, 1, 1] if case == "gqa" else [0, 1, 2, 3]
        scale = settings.get("scale", 6**-0.5)
        expected = naive_attention(q[row], k[row, heads], v[row, heads], allowed, bias, drop[row], scale)
        torch.testing.assert_close(out[row], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_attention_without_dropout_equals_torch_in_value_and_gradient(case: str) -> None:
    torch.manual_seed(0)
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 4, 5, 6, dtype=torch.float64))
    inputs = (q, k[:, :2], v[:, :2]) if case == "gqa" else (q, k, v)
    expected = F.scaled_dot_product_attention(*inputs, **CASES[case])
    with ChunkMode(keys(1, 2)):
        found = F.scaled_dot_product_attention(*inputs, **CASES[case])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), (q, k, v)),
        torch.autograd.grad((expected * weights).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("p", "sites"), [(0.5, 1), (0.0, 0)])
def test_off_the_cpu_the_fused_kernel_is_used_only_without_dropout(p: float, sites: int) -> None:
    q = torch.zeros(2, 1, 3, 4, device="meta")
    with ChunkMode(keys(1, 2).to("meta")) as drop:
        F.scaled_dot_product_attention(q, q, q, dropout_p=p)
        assert drop.site == sites
        F.scaled_dot_product_attention(q, q, q, None, p)
        assert drop.site == 2 * sites


def test_a_query_that_may_look_at_nothing_spoils_no_value_and_no_gradient() -> None:
    q = torch.randn(2, 1, 3, 4, requires_grad=True)
    allowed = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    with ChunkMode(keys(1, 2)):
        out = F.scaled_dot_product_attention(q, q, q, attn_mask=allowed, dropout_p=0.1)
    out[:, :, :2].sum().backward()
    assert out.isfinite().all()
    assert q.grad is not None and q.grad.isfinite().all()
