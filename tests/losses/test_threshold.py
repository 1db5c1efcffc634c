"""The logistic threshold: stop rule, bracket and root over awkward rows, against float64 bisection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dexml.losses.threshold import bracket, solve


def row_shapes(n: int) -> Tensor:
    """[6, n]: normal, all equal, one outlier of 1000, wide, cosine / 0.05, a block of high scores."""
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, generator=g, dtype=torch.float64)
    outlier, block = x.clone(), x.clone()
    outlier[0] = 1000.0
    block[: max(1, n // 50)] += 20
    return torch.stack([x, torch.full_like(x, 1000.0), outlier, 30 * x, (x / 8).clamp(-1, 1) * 20, block])


def solve_dense(s: Tensor, k: int, alpha: float, outside: Tensor | None = None, dtype=torch.float64, **kw):
    s = s if outside is None else s.masked_fill(outside, -torch.inf)
    n_labels = (s > -torch.inf).sum(1)
    top = s.sort(1, descending=True).values[:, : 2 * k]
    top = torch.cat([top, top.new_full((len(s), 2 * k - top.shape[1]), -torch.inf)], 1)
    want = torch.full((len(s),), k)
    ends = bracket(top, n_labels, want, alpha)

    def one_pass(active: Tensor, t: Tensor) -> Tensor:
        p = torch.sigmoid((alpha * s[active]).to(dtype) + (alpha * t).to(dtype)[:, None])
        v = p * (1 - p)
        sums = torch.stack([p.double().sum(1), alpha * v.double().sum(1), alpha**2 * (v * (1 - 2 * p)).double().sum(1)])
        return sums

    tol = 1e-12 if dtype == torch.float64 else 1e-5
    root = solve(torch.arange(len(s)), ends, want, one_pass, alpha=alpha, tol=tol, **kw)
    return root, ends


def bisect(s: Tensor, k: int, alpha: float) -> tuple[Tensor, Tensor]:
    finite = s.masked_fill(s == -torch.inf, torch.inf)
    lo, hi = -s.amax(1) - 40 / alpha, -finite.amin(1) + 40 / alpha
    for _ in range(120):
        mid = (lo + hi) / 2
        low = torch.sigmoid(alpha * (s + mid[:, None])).sum(1) < k
        lo, hi = torch.where(low, mid, lo), torch.where(low, hi, mid)
    return lo, hi


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("n, k", [(6, 1), (6, 5), (4000, 1), (4000, 5), (4000, 100), (100_000, 5), (100_000, 100)])
def test_every_row_meets_the_stop_rule_within_16_passes(n, k, alpha):
    s = row_shapes(n)
    for dtype in (torch.float64, torch.float32):
        root, (lo, hi) = solve_dense(s, k, alpha, dtype=dtype)
        assert 1 <= root.passes <= 16
        assert bool((lo <= hi).all())
        total = torch.sigmoid(alpha * (s + root.t[:, None])).sum(1)
        rounding = 1e-10 if dtype == torch.float64 else 1e-3
        assert float((total - k).abs().max()) <= rounding * k


@pytest.mark.parametrize("alpha", [0.5, 2.0])
@pytest.mark.parametrize("n, k", [(6, 1), (6, 5), (4000, 5), (4000, 100)])
def test_root_and_slope_equal_float64_bisection(n, k, alpha):
    s = row_shapes(n)[[0, 1, 3, 4, 5]]  # behind an outlier every t of a long stretch is a root
    root, (lo, hi) = solve_dense(s, k, alpha)
    t = sum(bisect(s, k, alpha)) / 2
    sharp = torch.sigmoid(alpha * (s + t[:, None]))
    slope = alpha * (sharp * (1 - sharp)).sum(1)
    usable = slope > 1e-3
    assert bool(((lo <= t + 1e-9) & (t <= hi + 1e-9)).all())
    torch.testing.assert_close(root.t[usable], t[usable], atol=1e-6, rtol=0)
    torch.testing.assert_close(root.slope[usable], slope[usable], atol=1e-9, rtol=1e-8)
    assert int(usable.sum()) >= 3


def test_real_score_rows_take_at_most_eight_passes():
    g = torch.Generator().manual_seed(0)
    cosine = torch.randn((32, 20_000), generator=g, dtype=torch.float64) / 8
    cosine[:, :5] += 0.5
    for k, alpha in [(5, 1.0), (5, 2.0), (100, 2.0)]:
        assert solve_dense(cosine.float().double() / 0.05, k, alpha, dtype=torch.float32)[0].passes <= 8
        assert solve_dense(cosine / 0.05, k, alpha)[0].passes <= 8


def test_masked_cells_are_outside_the_sum():
    s = row_shapes(50)
    outside = torch.zeros(s.shape, dtype=torch.bool)
    outside[:, ::3] = True
    root, _ = solve_dense(s[:1], 5, 2.0, outside[:1])
    kept = s[:1, ~outside[0]]
    assert float(torch.sigmoid(2 * (kept + root.t[:, None])).sum()) == pytest.approx(5, abs=1e-10)


def test_bisection_finds_the_same_root_in_more_passes():
    s = row_shapes(4000)[:1]
    halley, _ = solve_dense(s, 5, 2.0)
    halved, _ = solve_dense(s, 5, 2.0, method="bisect", max_iter=60)
    assert float((halley.t - halved.t).abs()) < 1e-6
    assert halved.passes > 3 * halley.passes


def test_too_few_passes_raise_and_name_the_setting():
    with pytest.raises(ValueError, match=r"topk: no threshold within 2 passes for 1 rows.*raise topk_n_iter"):
        solve_dense(row_shapes(4000)[3:4], 5, 2.0, method="bisect", max_iter=2)


def test_rows_not_asked_for_are_left_at_zero():
    s, k = row_shapes(40)[:2], torch.tensor([3, 3])
    ends = bracket(s.sort(1, descending=True).values[:1, :6], torch.tensor([40]), k[:1], 2.0)

    def one_pass(active, t):
        p = torch.sigmoid(2 * (s[active] + t[:, None]))
        v = p * (1 - p)
        return torch.stack([p.sum(1), 2 * v.sum(1), 4 * (v * (1 - 2 * p)).sum(1)])

    root = solve(torch.tensor([0]), ends, k, one_pass, alpha=2.0, tol=1e-12)
    assert float(root.t[1]) == 0 and float(root.slope[1]) == 1
    assert float(root.t[0]) != 0
