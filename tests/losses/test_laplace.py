"""The one-pass Laplace threshold against its own full solve."""

from __future__ import annotations

import pytest
import torch

from dexml.losses import laplace
from dexml.losses.leaders import Leaders, merge, top_cells


def full_solve(s, k):
    lo, hi = -s.amax(1) - 60, -s.amin(1) + 60
    for _ in range(200):
        mid = (lo + hi) / 2
        low = laplace.cdf(s + mid[:, None]).sum(1) < k
        lo, hi = torch.where(low, mid, lo), torch.where(low, hi, mid)
    return (lo + hi) / 2


def one_pass(s, k, tile=None):
    leaders = Leaders(len(s), 2 * int(k.max()), s.device, tail=True)
    for cols in s.split(tile or s.shape[1], 1):
        leaders.update_(slice(0, len(s)), cols.clone())
    return laplace.solve(leaders.top, leaders.tail, k)


@pytest.mark.parametrize("scale", [0.5, 3.0, 40.0, 400.0])
@pytest.mark.parametrize("n, k", [(6, 1), (6, 5), (300, 1), (300, 5), (5000, 100)])
def test_equals_the_full_solve(n, k, scale):
    g = torch.Generator().manual_seed(n + k)
    s = scale * torch.randn((12, n), generator=g, dtype=torch.float64)
    shift, density = one_pass(s, torch.full((12,), k), tile=97)
    exact = full_solve(s, k)
    total = laplace.cdf(s + shift[:, None]).sum(1)
    assert float((total - k).abs().max()) <= 1e-10 * k
    v = ((-(s + exact[:, None]).abs()).exp() / 2).sum(1)
    usable = v > 1e-6  # k leaders far ahead: any t between them and the rest is a root
    torch.testing.assert_close(shift[usable], exact[usable], atol=1e-8, rtol=1e-12)
    torch.testing.assert_close(density[usable], v[usable], atol=1e-10, rtol=1e-8)
    assert bool(usable.any()) or n == k + 1


def test_rows_of_one_batch_may_ask_for_different_k():
    g = torch.Generator().manual_seed(1)
    s = torch.randn((4, 60), generator=g, dtype=torch.float64)
    k = torch.tensor([1, 2, 7, 20])
    shift, _ = one_pass(s, k)
    torch.testing.assert_close(laplace.cdf(s + shift[:, None]).sum(1), k.double(), atol=1e-11, rtol=0)


def test_all_scores_equal_and_a_score_exactly_at_zero():
    equal = torch.full((1, 9), 5.0, dtype=torch.float64)
    shift, _ = one_pass(equal, torch.tensor([4]))
    assert float(laplace.cdf(equal + shift[:, None]).sum()) == pytest.approx(4, abs=1e-12)
    even = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    shift, _ = one_pass(torch.cat([even, even - 80], 1), torch.tensor([1]))
    assert float(laplace.cdf(even + shift[:, None]).sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n_cols", [5, 64, 1000, 1003])
def test_top_cells_are_the_largest_with_their_columns(n_cols):
    tile = torch.randn((7, n_cols), generator=torch.Generator().manual_seed(n_cols))
    values, cells = top_cells(tile, 6)
    want = tile.topk(min(6, n_cols)).values
    assert torch.equal(values.sort(1, descending=True).values, want)
    assert torch.equal(tile.gather(1, cells), values)


def test_merged_shards_equal_all_labels_at_once():
    s = torch.randn((5, 30), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [Leaders(5, 8, s.device, tail=True) for _ in range(3)]
    for part, cols in zip(parts, s.split([20, 3, 7], 1), strict=True):
        part.update_(slice(0, 5), cols.clone())
    top, tail = merge(torch.stack([p.top for p in parts]), torch.stack([p.tail for p in parts]))
    ranked = s.sort(1, descending=True).values
    assert torch.equal(top, ranked[:, :8])
    torch.testing.assert_close(tail, ranked[:, 8:].logsumexp(1))
