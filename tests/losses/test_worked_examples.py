"""Worked examples, each checked by autograd, finite differences and closed forms, in both forms of the losses."""

from __future__ import annotations

import pytest
import torch

from dexml.losses import KEPT, REMOVED, Positives, TopK, tiled
from dexml.losses.lse import OnlineLSE
from dexml.losses.threshold import bracket, solve
from tests.losses.naive import dense_loss
from tests.losses.ranks import join, run_ranks, shard

ROW = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0, 3.0]], dtype=torch.float64)
ALL = Positives.from_csr([0, 2], [0, 2])
FIRST = Positives.from_csr([0, 2], [0, 2], role=[KEPT, REMOVED])
SECOND = Positives.from_csr([0, 2], [0, 2], role=[REMOVED, KEPT])
WEIGHTED = Positives.from_csr([0, 2], [0, 2], weights=torch.tensor([1.0, 0.25], dtype=torch.float64))

EXAMPLES = {
    "E1": ("decoupled-softmax", ALL, 2, 2.1015400135,
           [-0.3829391714, 0.0957024920, -0.4680733058, 0.0129519239, 0.0352069793, 0.7071510821]),
    "E2": ("decoupled-softmax", FIRST, 2, 1.4519143959,
           [-0.7658783427, 0.0861285444, 0, 0.0116562310, 0.0316849208, 0.6364086466]),
    "E3": ("decoupled-softmax", WEIGHTED, 2, 1.0698529018,
           [-0.3829391714, 0.0562238272, -0.1170183265, 0.0076090676, 0.0206835901, 0.4154410130]),
    "E4a": ("softmax", FIRST, 2, 1.5028352437,
            [-0.7775015723, 0.0818525973, 0.0496461098, 0.0110775444, 0.0301118877, 0.6048134330]),
    "E4b": ("softmax", ALL, 2, 4.5056704874,
            [-0.5550031445, 0.1637051945, -0.9007077804, 0.0221550889, 0.0602237755, 1.2096268660]),
    "E4c": ("bce", ALL, 2, 0.9948771504,
            [-0.0198671537, 0.1218430964, -0.0629234448, 0.0448235702, 0.0833333333, 0.1587623545]),
    "E5": ("topk", ALL, 2, 1.3470345689,
           [0.1392098808, 0.3711787894, -0.7149200245, 0.0113091997, 0.0780772932, 0.1151448614]),
    "E6": ("topk", SECOND, 1, 3.2902998875,
           [0, 0.6278427525, -1.6640371642, 0.0139909095, 0.1008863819, 0.9213171202]),
    "E7": ("topk-laplace", ALL, 2, 1.5394950615,
           [0.2889992544, 0.4175231855, -0.8464018038, 0.0076472039, 0.0565056186, 0.0757265414]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_dense_form_gives_the_loss_and_gradient_of_the_example(name):
    loss, positives, k, value, gradient = EXAMPLES[name]
    sim = ROW.clone().requires_grad_()
    result = dense_loss(loss, sim, positives, weighted=name == "E3", k=k)
    (got,) = torch.autograd.grad(result.mean, sim)
    assert result.count == 1
    assert float(result.total.detach()) == pytest.approx(value, abs=1e-9)
    torch.testing.assert_close(got[0], torch.tensor(gradient, dtype=torch.float64), atol=1e-9, rtol=0)
    assert torch.equal(sim.detach(), ROW)


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("tile_cols", [1, 3, 8192])
@pytest.mark.parametrize("name", EXAMPLES)
def test_tiled_form_gives_the_loss_and_gradient_of_the_example(name, tile_cols, dtype, atol):
    loss, positives, k, value, gradient = EXAMPLES[name]
    cdf = "laplace" if loss == "topk-laplace" else "logistic"
    got = tiled(
        loss.removesuffix("-laplace"), ROW.to(dtype), torch.eye(6, dtype=dtype), positives, 1.0,
        tile_cols=tile_cols, weighted=name == "E3", topk=TopK(k, 2.0, cdf),
    )  # fmt: skip
    assert float(got.total) == pytest.approx(value, abs=atol)
    torch.testing.assert_close(got.grad_query[0], torch.tensor(gradient, dtype=dtype), atol=atol, rtol=0)
    torch.testing.assert_close(got.grad_label, got.grad_query.T @ ROW.to(dtype), atol=atol, rtol=1e-5)


E8_LOSS = 0.7549086541
E8_QUERY = [(-0.2154569780, -0.2776187798), (-0.3366783098, -0.0264363605)]
E8_QUERY_A = [(-0.3854590400, -0.0509493637), (-0.2960444964, -0.0806147783)]
E8_LABEL = [(-0.0780067376, 0.1525089089), (-0.6063487503, -0.4866806326), (0.2644910195, 0.2275165569),
            (0.0885807558, 0.0804167923), (0.3312837126, 0.0262383745)]  # fmt: skip


def test_e8_batch_on_two_label_shards_and_on_one():
    query = torch.tensor([(1, 0), (0.6, 0.8)], dtype=torch.float64)
    label = torch.tensor([(1, 0), (0.8, 0.6), (0, 1), (-0.6, 0.8), (0.6, -0.8)], dtype=torch.float64)
    positives = Positives.from_csr([0, 2, 3], [0, 1, 1])
    ends = [(0, 3), (3, 5)]
    results, _ = run_ranks(
        2,
        lambda comm: tiled(
            "decoupled-softmax",
            query,
            label[slice(*ends[comm.rank])],
            shard(positives, *ends[comm.rank]),
            0.5,
            comm=comm,
        ),
    )
    one = tiled("decoupled-softmax", query, label, positives, 0.5)
    total, grad_query, grad_label = join(results)
    for value, dx, dz in [(total, grad_query, grad_label), (float(one.total), one.grad_query, one.grad_label)]:
        assert value / 2 == pytest.approx(E8_LOSS, abs=1e-9)
        torch.testing.assert_close(dx, torch.tensor(E8_QUERY, dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(dz, torch.tensor(E8_LABEL, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(results[0].grad_query, torch.tensor(E8_QUERY_A, dtype=torch.float64), atol=1e-9, rtol=0)


def test_e9_running_maximum_and_sum_after_each_tile():
    lse = OnlineLSE(1, torch.device("cpu"))
    masked = ROW.clone()
    masked[0, [0, 2]] = -torch.inf
    lse.update_(slice(0, 1), masked[:, :3].clone())
    assert (float(lse.m), float(lse.a)) == (1.0, 1.0)
    lse.update_(slice(0, 1), masked[:, 3:].clone())
    assert float(lse.m) == 3.0
    assert float(lse.a) == pytest.approx(1.2034379905, abs=1e-10)
    assert float(lse.value) == pytest.approx(3.1851824526, abs=1e-10)


def test_e11_solver_takes_the_three_iterates_of_the_trace():
    top, k = ROW.sort(1, descending=True).values[:, :4], torch.tensor([2])
    lo, hi = bracket(top, torch.tensor([6]), k, 2.0)
    assert float(lo) == pytest.approx(-2.6931471806, abs=1e-10)
    assert float(hi) == pytest.approx(-0.6534264097, abs=1e-10)
    seen = []

    def one_pass(active, t):
        p = torch.sigmoid(2 * (ROW + t[:, None]))
        v = p * (1 - p)
        seen.append([float(t), float(p.sum()), float(2 * v.sum()), float(4 * (v * (1 - 2 * p)).sum())])
        return torch.tensor(seen[-1][1:], dtype=torch.float64)[:, None]

    root = solve(torch.tensor([0]), (lo, hi), k, one_pass, alpha=2.0, tol=1e-12)
    assert root.passes == 3
    assert seen[0] == pytest.approx([-1.673286795140, 1.924523063150, 1.135308724433, 0.291437614005], abs=1e-11)
    assert seen[1][:2] == pytest.approx([-1.607359642664, 2.000018002846], abs=1e-11)
    assert seen[2][0] == pytest.approx(-1.607375227389, abs=1e-11)
    assert float(root.slope) == pytest.approx(1.155157259735, abs=1e-11)
