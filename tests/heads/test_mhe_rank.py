"""The product of rank R: its search, its loss beside a dense one, what it refuses, and what rank is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from bench.quality import ghosts
from dexml.config import ConfigError
from dexml.heads import code_search
from dexml.heads.code_search import rank_topk
from dexml.heads.mhe_product import Product
from dexml.heads.mhe_rank import row_bounds
from tests.heads.mhe_examples import fill, make, ready, tensor
from tests.heads.test_mhe import learn, points, precision, prototypes
from tests.training.runs import config


def dense(first: Tensor, second: Tensor, n_codes: int) -> Tensor:
    """[N, L] the logits of all labels."""
    return torch.einsum("nrg,nrc->ngc", first, second).flatten(1)[:, :n_codes]


def factors(rng: np.random.Generator, integer: bool, n: int = 3) -> tuple[Tensor, Tensor]:
    rank, *lengths = rng.integers(1, 8, 3)
    shapes = [(n, rank, length) for length in lengths]
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(rng.integers(-2, 3, shape).astype(float) if integer else rng.normal(size=shape))
        for shape in shapes
    )


# --- search


@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
@pytest.mark.parametrize("integer", [True, False])
def test_the_search_equals_brute_force(monkeypatch: pytest.MonkeyPatch, integer: bool, cells: int) -> None:
    monkeypatch.setattr(code_search, "CELLS", cells)
    rng = np.random.default_rng(int(integer))
    for _ in range(300):
        first, second = factors(rng, integer)
        n = first.shape[2] * second.shape[2]
        n_codes, k = int(rng.integers(-(-n // 2), n + 1)), int(rng.integers(1, n + 3))
        wanted = dense(first, second, n_codes).sort(dim=1, descending=True, stable=True)
        codes, sums = rank_topk(first, second, n_codes, k)
        assert torch.equal(codes, wanted.indices[:, :k])
        torch.testing.assert_close(sums, wanted.values[:, :k])


def test_no_label_of_a_row_is_above_its_bound() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        first, second = factors(rng, integer=True)
        largest = torch.einsum("nrg,nrc->nrgc", first, second)
        assert (row_bounds(first, second) >= largest.sum(1).amax(2)).all()
        assert torch.equal(row_bounds(first[:, :1], second[:, :1]), largest[:, 0].amax(2))


def test_two_ranks_separate_what_one_product_cannot() -> None:
    """Labels 0 and 4 of lengths 2x3: (1,0) x (1,0,0) + (0,1) x (0,1,0)."""
    first, second = tensor([[1, 0], [0, 1]]), tensor([[1, 0, 0], [0, 1, 0]])
    assert dense(first, second, 6).tolist() == [[1, 0, 0, 0, 1, 0]]
    codes, sums = rank_topk(first, second, 6, 6)
    assert codes.tolist() == [[0, 4, 1, 2, 3, 5]]
    assert sums.tolist() == [[1, 1, 0, 0, 0, 0]]


# --- loss


def head_and_z(loss: str, labels: int = 17, **keys: Any) -> tuple[Any, Tensor]:
    """Five rows of four labels, the last with three pads, and three texts of six numbers."""
    head = make("product", labels, (5, 4), 6, loss, mhe_rank=3, **keys)
    generator = torch.Generator().manual_seed(0)
    fill(head.net.heads.weight, torch.randn(27, 6, generator=generator))
    return head, torch.randn(3, 6, generator=generator).double().requires_grad_()


OWN = [[0, 5, 9, 16], [7], []]


def naive(head: Any, z: Tensor, own: list[list[int]], n_open: int, loss: str) -> Tensor:
    """The loss text by text from all logits, with rows opened one by one."""
    flat = z @ head.net.heads.weight.T + head.net.heads.bias
    first, second = flat[:, :15].view(-1, 3, 5), flat[:, 15:].view(-1, 3, 4)
    logits, losses, terms = dense(first, second, 17), [], 0
    for b, labels in enumerate(own):
        bound = [
            sum(max(float(x) for x in first.detach()[b, r, g] * second.detach()[b, r]) for r in range(3))
            for g in range(5)
        ]
        true = {c // 4 for c in labels}
        rows = sorted(range(5), key=lambda g: (g not in true, -bound[g]))[:n_open]
        compared = sorted({c for g in rows for c in range(4 * g, min(17, 4 * g + 4))} | set(labels))
        terms += len(compared)
        target = torch.tensor([float(c in labels) for c in compared]).double()
        if loss == "bce":
            losses.append(F.binary_cross_entropy_with_logits(logits[b, compared], target, reduction="sum"))
        else:
            negatives = [c for c in compared if c not in labels]
            each = [F.cross_entropy(logits[b, [c, *negatives]], torch.tensor(0)) for c in labels]
            losses += [torch.stack(each).mean()] if each else []
    return torch.stack(losses).sum() / (terms if loss == "bce" else len(own))


@pytest.mark.parametrize("n_open", [1, 2, 5])
@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_loss_and_gradient_are_those_of_the_dense_logits(loss: str, n_open: int) -> None:
    head, z = head_and_z(loss, mhe_open=n_open)
    found, wanted = head.loss(z, ready(head, OWN)), naive(head, z, OWN, n_open, loss)
    torch.testing.assert_close(found, wanted)
    variables = [z, head.net.heads.weight, head.net.heads.bias]
    for a, b in zip(torch.autograd.grad(found, variables), torch.autograd.grad(wanted, variables), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_the_best_labels_come_first_with_pads_left_out(loss: str) -> None:
    head, z = head_and_z(loss)
    ids, scores = head.best(z.detach(), 20)
    first, second = head.net(z.detach())
    logits = dense(first, second, 17)
    wanted = logits.sort(dim=1, descending=True, stable=True)
    assert torch.equal(ids[:, :17], wanted.indices)
    torch.testing.assert_close(scores[:, :17], wanted.values.sigmoid() if loss == "bce" else wanted.values)
    assert (ids[:, 17:] == -1).all() and (scores[:, 17:] == -torch.inf).all()


# --- keys


def test_rank_one_is_the_plain_product() -> None:
    assert type(make("product", 6, (2, 3), 5, mhe_rank=1)) is Product


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mhe_kind": "cascade"}, "mhe_rank is for mhe_kind product, mhe_kind is cascade"),
        ({"mhe_kind": "sampling"}, "mhe_rank is for mhe_kind product, mhe_kind is sampling"),
        ({"mhe_heads": 3}, "mhe_rank above 1 has two heads"),
        ({"mhe_lengths": "3x3x4"}, "mhe_rank above 1 has two heads"),
        ({"mhe_loss": "soft-margin"}, "mhe_loss soft-margin is for mhe_rank 1"),
        ({"mhe_renormalise": True}, "mhe_renormalise is for mhe_rank 1"),
        ({"mhe_rank": 0}, "mhe_rank"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **{"net": "mhe", "mhe_kind": "product", "mhe_rank": 2, **keys})


# --- what rank is good for


def several(rank: int, steps: int) -> tuple[float, float]:
    """P@3, and the percentage of wrong labels that are ghosts, with three of 58 labels a text."""
    rng = np.random.default_rng(0)
    where = prototypes(rng, 64)
    trn, tst = points(rng, where, 4096, 3), points(rng, where, 512, 3)
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU()).double()
    keys: dict[str, Any] = {"mhe_open": 5} if rank > 1 else {}
    head = make("product", 58, (10, 6), 256, "bce", mhe_rank=rank, **keys)
    learn(head, encoder, trn, steps, rng)
    with torch.no_grad():
        ids = head.best(encoder(tst[0]), 3)[0].numpy()
    rows = np.repeat(np.arange(512), 3)
    relevance = csr_matrix((np.ones(1536), (rows, np.concatenate(tst[1]))), (512, 58))
    wrong = ghosts(ids, relevance, head.codes)
    assert wrong is not None
    return precision(head, encoder, tst, 3), wrong


def test_ranks_cure_ghosts() -> None:
    plain, ranked = several(1, steps=100), several(8, steps=100)
    assert ranked[0] > plain[0] + 0.1
    assert ranked[1] < plain[1] / 2


@pytest.mark.heavy
def test_each_rank_adds_precision() -> None:
    found = [several(rank, steps=800)[0] for rank in (1, 2, 4, 8)]
    assert found == sorted(found)
    assert found[0] < 0.6 and found[-1] > 0.95
