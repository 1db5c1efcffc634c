"""Losses and searches of Multi-Head Encoding on examples worked out by hand, and beside naive formulas."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.data.batching import hash64
from dexml.distributed import World
from dexml.heads.candidates import Truth
from dexml.heads.code_search import product_topk
from dexml.heads.mhe_losses import (
    bce_loss,
    decoupled_loss,
    joint_softmax_loss,
    multi_hot,
    normaliser,
    soft_margin_loss,
    softmax_loss,
)
from dexml.heads.mhe_sampling import sampled_groups
from tests.heads.mhe_examples import fill, make, ready, tensor

ONE = [tensor([1.0, 0.0, -1.0]), tensor([0.5, -0.5])]  # lengths 3, 2
TWO = [tensor([1.0, 0.0]), tensor([0.5, -0.5, 0.0])]  # lengths 2, 3
NEAR = {"abs": 5e-7}


def truth(*labels: list[int]) -> Truth:
    row = [row for row, some in enumerate(labels) for _ in some]
    return Truth(torch.tensor(row), torch.tensor([label for some in labels for label in some]), len(labels))


def joint(parts: list[Tensor]) -> Tensor:
    """The logits [B, P] of all codes, sums of those of their digits."""
    total = parts[0]
    for part in parts[1:]:
        total = (total[:, :, None] + part[:, None]).flatten(1)
    return total


# --- product


def test_the_softmax_of_every_head_is_that_of_all_codes() -> None:
    assert softmax_loss(ONE, truth([3])).item() == pytest.approx(1.407606 + 1.313262, **NEAR)
    for code in range(6):
        expected = F.cross_entropy(joint(ONE), torch.tensor([code]))
        torch.testing.assert_close(softmax_loss(ONE, truth([code])), expected)


def test_pads_can_be_left_out_of_the_softmax() -> None:
    assert softmax_loss(ONE, truth([3]), 5).item() == pytest.approx(2.696357, **NEAR)


@pytest.mark.parametrize("lengths", [(7,), (3, 4), (2, 3, 4), (2, 2, 2, 3)])
def test_the_normaliser_equals_that_of_all_codes(lengths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(5, m, generator=generator, dtype=torch.float64, requires_grad=True) for m in lengths]
    for n_codes in range(1, prod(lengths) + 1):
        found, naive = normaliser(parts, n_codes), joint(parts)[:, :n_codes].logsumexp(1)
        torch.testing.assert_close(found, naive)
        for a, b in zip(torch.autograd.grad(found.sum(), parts), torch.autograd.grad(naive.sum(), parts), strict=True):
            torch.testing.assert_close(a, b)


def test_the_other_losses_of_one_label() -> None:
    assert joint_softmax_loss(ONE, truth([3])).item() == pytest.approx(4.194203, **NEAR)
    assert soft_margin_loss(ONE, truth([3])).item() == pytest.approx(0.853565, **NEAR)


def test_losses_of_several_labels() -> None:
    assert bce_loss(TWO, truth([0, 4])).item() == pytest.approx(1.216971, **NEAR)
    assert softmax_loss(TWO, truth([0, 4])).item() == pytest.approx(1.993531, **NEAR)
    assert [t[0].tolist() for t in multi_hot(TWO, truth([0, 4]))] == [[True, True], [True, True, False]]


def test_a_head_divides_by_the_texts_of_the_batch() -> None:
    head = make("product", 6, (2, 3), 5)
    fill(head.net.heads.weight, np.eye(5))
    fill(head.net.heads.bias, 5 * [0.0])
    z = torch.cat([torch.cat(TWO, 1)] * 4)
    assert head.loss(z, ready(head, [[0, 4]] * 4)).item() == pytest.approx(1.216971, **NEAR)


def test_codes_put_together_of_digits_of_positives_are_ghosts() -> None:
    parts = [tensor([6.0, 6.0]), tensor([6.0, 6.0, -6.0])]
    codes, scores = product_topk([F.logsigmoid(part) for part in parts], 6, 6)
    assert codes.tolist() == [[0, 1, 3, 4, 2, 5]]  # 0 and 4 are right
    assert scores[0].tolist() == pytest.approx([-0.004951] * 4 + [-6.004951] * 2, **NEAR)


def test_two_ranks_pair_digits() -> None:
    ranks = [(tensor([1.0, 0.0]), tensor([1.0, 0.0, 0.0])), (tensor([0.0, 1.0]), tensor([0.0, 1.0, 0.0]))]
    total = sum(torch.kron(first[0], second[0]) for first, second in ranks)
    assert torch.as_tensor(total).tolist() == [1, 0, 0, 0, 1, 0]


def test_a_softmax_of_rank_one_can_let_every_class_win() -> None:
    u = torch.arange(7).double()
    s = torch.linspace(-1, 7, 400).double()[:, None]
    assert (s * u - u**2 / 2).argmax(1).unique().tolist() == list(range(7))
    assert (s * u).argmax(1).unique().tolist() == [0, 6]
    assert torch.linalg.matrix_rank(s * u) == 1
    assert torch.linalg.matrix_rank((s * u - u**2 / 2).softmax(1)) == 7


# --- cascade


def cascade(loss: str = "bce", **keys: Any) -> Any:
    """Ten labels in groups of three, element c being 0.1 c, every text vector giving g = (2, 1, -1, 0) and z = 1."""
    head = make("cascade", 10, (4, 3), 1, loss, **{"mhe_dim": 1, "mhe_open": 2, **keys})
    fill(head.net.groups.weight, [0.0] * 4)
    fill(head.net.groups.bias, [2.0, 1.0, -1.0, 0.0])
    fill(head.net.narrow.weight, 1.0)
    fill(head.net.narrow.bias, 0.0)
    fill(head.table_PD, torch.arange(10) / 10)
    return head


Z = tensor([1.0])


@pytest.mark.parametrize(
    ("labels", "keys", "loss"),
    [
        ([7], {}, 1.361650 + 0.807910),
        ([9], {}, 1.111650 + 0.644209),
        ([1, 4, 7, 9], {}, 0.611650 + 0.652684),
        ([1, 4, 7, 9], {"mhe_overflow": "replace"}, 0.611650 + 0.621697),
        ([1, 4, 7, 9], {"mhe_overflow": "drop"}, 0.611650 + 0.746188),
    ],
)
def test_a_step_of_the_cascade(labels: list[int], keys: dict[str, str], loss: float) -> None:
    for table in ("replicated", "sharded"):
        head = cascade(**keys, mhe_table=table)
        assert head.loss(Z, ready(head, [labels])).item() == pytest.approx(loss, abs=1e-6)


def test_labels_that_are_not_compared_get_no_gradient() -> None:
    head = cascade()
    head.loss(Z, ready(head, [[7]])).backward()
    assert head.net.labels.grad.nonzero()[:, 0].tolist() == [0, 1, 2, 6, 7, 8]


def test_the_cascade_ranks_by_the_product_of_probabilities() -> None:
    best = [0.484292, 0.462400, 0.455054]
    for keys in ({}, {"mhe_open": 4}, {"mhe_exact": True}):
        ids, scores = cascade(**keys).best(Z, 3)
        assert ids.tolist() == [[2, 1, 5]]
        assert scores[0].tolist() == pytest.approx(best, abs=1e-6)
    for keys in ({"mhe_open": 4}, {"mhe_exact": True}):
        ids, _ = cascade(**keys).best(Z, 12)
        assert ids.tolist() == [[2, 1, 5, 0, 4, 3, 9, 8, 7, 6, -1, -1]]


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("table", ["replicated", "sharded"])
def test_exact_search_equals_brute_force(loss: str, table: str) -> None:
    generator = torch.Generator().manual_seed(1)
    head = make("cascade", 23, (6, 4), 8, loss, mhe_dim=5, mhe_exact=True, mhe_table=table)
    fill(head.table_PD, 3 * torch.randn(23, 5, generator=generator))
    fill(head.net.groups.weight, 2 * torch.randn(6, 8, generator=generator))
    z = torch.randn(50, 8, generator=generator).double()
    group, element = head.net.groups(z), head.net.narrow(z) @ head.table_PD.T
    element = F.pad(element, (0, 1), value=-torch.inf).view(50, 6, 4)
    if loss == "bce":
        dense = group.sigmoid()[..., None] * element.sigmoid()
    else:
        dense = group.softmax(1)[..., None] * element.softmax(2)
    wanted = dense.flatten(1)[:, :23].float().sort(dim=1, descending=True, stable=True)
    for k in (1, 5, 23):
        ids, scores = head.best(z, k)
        torch.testing.assert_close(scores.double(), wanted.values[:, :k].double(), rtol=1e-6, atol=0)
        assert (ids == wanted.indices[:, :k]).float().mean() > 0.99  # but for ties of rounding


def test_the_softmax_cascade_is_trained_on_the_block_of_the_true_group() -> None:
    for table in ("replicated", "sharded"):
        head = cascade("softmax", mhe_table=table)
        g, block = tensor([2.0, 1.0, -1.0, 0.0]), tensor([0.6, 0.7, 0.8])
        expected = F.cross_entropy(g, torch.tensor([2])) + F.cross_entropy(block, torch.tensor([1]))
        torch.testing.assert_close(head.loss(Z, ready(head, [[7]])), expected, rtol=1e-6, atol=0)
        alone = F.cross_entropy(g, torch.tensor([3]))  # label 9 has no other beside it
        both = head.loss(Z, ready(head, [[7, 9]]))
        torch.testing.assert_close(both, (expected + alone) / 2, rtol=1e-6, atol=0)


# --- sampling


def sampling(n_labels: int = 6, loss: str = "softmax", **keys: Any) -> Any:
    """Groups of two labels; vectors of labels are (0, 1), (2, 3), ... / 10."""
    head = make("sampling", n_labels, (3, 2), 2, loss, **keys)
    fill(head.table_PD, torch.arange(12).view(6, 2)[:n_labels] / 10)
    return head


def of_groups(monkeypatch: pytest.MonkeyPatch, *groups: int) -> None:
    """Has all texts compared with these groups."""
    monkeypatch.setattr("dexml.heads.mhe_sampling.sampled_groups", lambda *_: np.array([groups]))


@pytest.mark.parametrize("table", ["replicated", "sharded"])
@pytest.mark.parametrize(
    ("n_labels", "labels", "groups", "loss", "value"),
    [
        (6, [3], (1, 0), "softmax", 0.700770),
        (6, [3], (1,), "softmax", 0.437488),
        (6, [3], (1, 0, 2), "softmax", 1.968166),
        (6, [3], (1, 2, 0), "softmax", 1.968166),
        (6, [2], (1, 2), "softmax", 2.500770),
        (5, [3], (1, 2), "softmax", 1.215189),
        (6, [3], (1, 2), "softmax", 1.900770),
        (6, [1, 3], (0, 1), "bce", 0.729146),
        (6, [1, 3], (0, 1), "softmax", (1.215189 + 0.538894) / 2),
    ],
)
def test_a_step_of_sampling(
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    n_labels: int,
    labels: list[int],
    groups: tuple[int, ...],
    loss: str,
    value: float,
) -> None:
    of_groups(monkeypatch, *groups)
    head = sampling(n_labels, loss, mhe_table=table)
    assert head.loss(tensor([1.0, 2.0]), ready(head, [labels])).item() == pytest.approx(value, abs=1e-6)


def test_the_scope_own_compares_with_the_groups_of_the_labels() -> None:
    head = sampling(mhe_scope="own")
    assert head.loss(tensor([1.0, 2.0]), ready(head, [[3]])).item() == pytest.approx(0.437488, abs=1e-6)


@pytest.mark.parametrize("table", ["replicated", "sharded"])
def test_the_scope_batch_compares_with_the_groups_of_all_texts(table: str) -> None:
    head = sampling(mhe_scope="batch", mhe_table=table)
    z = tensor([1.0, 2.0], [2.0, 1.0])
    assert head.loss(z, ready(head, [[3], [4]])).item() == pytest.approx(1.600770, abs=1e-6)


def test_all_labels_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexml.heads.mhe_sampling.CELLS", 2)  # two labels at a time
    ids, scores = sampling().best(tensor([1.0, 2.0]), 4)
    assert ids.tolist() == [[5, 4, 3, 2]]
    assert scores[0].tolist() == pytest.approx([3.2, 2.6, 2.0, 1.4])
    ids, scores = sampling(loss="bce").best(tensor([1.0, 2.0]), 7)
    assert ids.tolist() == [[5, 4, 3, 2, 1, 0, -1]]
    assert scores[0, :2].tolist() == pytest.approx(torch.tensor([3.2, 2.6]).sigmoid().tolist())


def test_groups_are_drawn_by_seed_epoch_and_text() -> None:
    for (seed, epoch, text), first, order in [
        ((0, 0, 0), 0x2130748AAAC80268, [0, 1, 9, 4, 2, 3, 6, 8, 7, 5]),
        ((6088, 1, 42), 0xD422912CE77AD6C3, [9, 8, 6, 4, 2, 7, 5, 0, 1, 3]),
    ]:
        priority = hash64(seed, epoch, text, np.arange(10))
        assert int(priority[0]) == first
        assert np.argsort(priority, kind="stable").tolist() == order
        none = np.zeros((1, 10), bool)
        assert sampled_groups(none, np.array([text]), 10, seed, epoch).tolist() == [order]


def test_true_groups_come_first_and_are_never_cut() -> None:
    for own, wanted in (([9], [9, 8, 6, 4]), ([0], [0, 9, 8, 6])):
        true = np.isin(np.arange(10), own)[None]
        assert sampled_groups(true, np.array([42]), 4, 6088, 1).tolist() == [wanted]
    true = np.zeros((3, 5), bool)
    true[0, :3], true[1, 4] = True, True
    found = sampled_groups(true, np.arange(3), 2, 0, 0)
    assert set(found[0]) == {0, 1, 2}
    assert found[1, 0] == 4 and found[1, 2] == -1 and len(set(found[1])) == 3
    assert (found[2] >= 0).tolist() == [True, True, False]
    every = sampled_groups(true, np.arange(3), 5, 0, 0)
    assert (np.sort(every) == np.arange(5)).all()


def test_the_decoupled_loss_is_that_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(2)
    logit = torch.randn(4, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(4, 7, generator=generator) < 0.4
    target[3] = True  # no negatives: nothing to lose
    losses = []
    for row in range(4):
        negatives = logit[row][~target[row]].exp().sum()
        own = [(negatives + s.exp()).log() - s for s in logit[row][target[row]]]
        losses += [sum(own) / len(own)] if own else []
    naive = torch.stack([torch.as_tensor(loss) for loss in losses]).sum()
    found = decoupled_loss(logit, target, target.sum(1), World())
    torch.testing.assert_close(found, naive)
    torch.testing.assert_close(*(torch.autograd.grad(x, logit)[0] for x in (found, naive)))


# --- gradients that name the rows they touch


@pytest.mark.parametrize(
    ("kind", "loss", "keys"),
    [
        ("cascade", "bce", {"mhe_open": 2}),
        ("cascade", "softmax", {}),
        ("sampling", "softmax", {"mhe_sampled": 2}),
        ("sampling", "bce", {"mhe_scope": "batch"}),
    ],
)
def test_sparse_gradients_of_tables_are_the_dense_ones(kind: str, loss: str, keys: dict[str, Any]) -> None:
    grads = []
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(3)).double()
    for optim in ("adamw", "lazyadam"):
        head = make(kind, 50, (10, 5), 4, loss, optim=optim, mhe_dim=3, **keys)
        head.loss(z, ready(head, [[0, 49], [7], [8, 9]])).backward()
        grads.append(head.net.labels.grad)
    assert grads[1].is_sparse
    touched = grads[0].any(1).sum()
    assert grads[1].coalesce().indices().shape[1] >= touched > 0
    torch.testing.assert_close(grads[1].to_dense(), grads[0])
