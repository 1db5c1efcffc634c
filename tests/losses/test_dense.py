"""Dense forms: against the one-label-at-a-time twin, and their gradients against finite differences."""

from __future__ import annotations

import pytest
import torch

from dexml.losses import KEPT, Positives, bce, decoupled_softmax, soft_topk, softmax
from tests.losses.naive import LOSSES, dense_loss, random_batch, random_positives, total_loss


def scores(n_rows=5, n_cols=12, seed=0):
    query, label = random_batch(n_rows, n_cols, 4, seed)
    return query @ label.T


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOSSES)
def test_value_equals_the_naive_twin(name, seed, weighted):
    weighted = weighted and name != "bce"
    sim, positives = scores(seed=seed), random_positives(5, 12, seed, share=0.3)
    got = dense_loss(name, sim, positives, weighted)
    assert got.count == 5
    assert float(got.total) == pytest.approx(total_loss(name, sim, positives, weighted), abs=1e-9)


@pytest.mark.parametrize("roles", [(KEPT,), (0, 1, 2)], ids=["all kept", "sampled"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name, weighted, roles):
    weighted = weighted and name != "bce"
    sim = scores(4, 8, seed=7).requires_grad_()
    positives = random_positives(4, 8, 7, share=0.3, roles=roles)
    assert torch.autograd.gradcheck(lambda s: dense_loss(name, s, positives, weighted).mean, sim)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "bce"])
def test_row_gradients_add_up_to_zero(name):
    sim = scores(seed=3).requires_grad_()
    positives = random_positives(5, 12, 3, share=0.3)
    (grad,) = torch.autograd.grad(dense_loss(name, sim, positives, False).total, sim)
    assert float(grad.sum(1).abs().max()) < 1e-12
    assert float(grad.abs().max()) > 0.01


def test_bfloat16_scores_are_summed_in_float32():
    sim = scores(seed=1)
    positives = random_positives(5, 12, 1)
    got = softmax(sim.bfloat16(), positives)
    assert got.total.dtype == torch.float32
    assert float(got.total) == pytest.approx(float(softmax(sim.bfloat16().double(), positives).total), rel=1e-5)


def test_a_row_with_no_more_labels_than_k_has_no_loss_and_no_gradient():
    sim = scores(2, 4).requires_grad_()
    positives = Positives.from_csr([0, 1, 3], [0, 1, 2], role=[0, 0, 1])
    total = soft_topk(sim, positives, k=3).total
    (grad,) = torch.autograd.grad(total, sim)
    assert float(grad[1].abs().max()) == 0
    assert float(grad[0].abs().max()) > 0
    assert float(soft_topk(sim.detach(), positives, k=torch.tensor([4, 9])).total) == 0


def test_errors_name_the_argument():
    positives = Positives.from_csr([0, 1], [3])
    with pytest.raises(ValueError, match=r"positives\.cols: 3\.\.3 reaches outside the 3 labels"):
        softmax(torch.zeros(1, 3), positives)
    with pytest.raises(ValueError, match=r"sim_GS: need \[1, S\]"):
        softmax(torch.zeros(2, 5), positives)
    with pytest.raises(ValueError, match="sim_GS: 1 scores are NaN or infinite"):
        softmax(torch.tensor([[0.0, 1.0, float("nan"), 2.0]]), positives)
    with pytest.raises(ValueError, match=r"topk\.k: must be at least 1"):
        soft_topk(torch.zeros(1, 5), positives, k=0)
    with pytest.raises(ValueError, match=r"topk\.k: 5 of 5 labels: a top-k over all of them has no threshold"):
        soft_topk(torch.zeros(1, 5), positives, k=5)


@pytest.mark.parametrize("loss", [softmax, bce, decoupled_softmax, soft_topk])
def test_a_batch_without_any_positive_is_refused(loss):
    with pytest.raises(ValueError, match="positives: no query has a kept positive"):
        loss(scores(2, 9), Positives.from_csr([0, 0, 1], [3], role=[1]))
