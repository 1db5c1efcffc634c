"""Label-wise attention: the numbers worked out by hand, and the fast forms against plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.distributed import RowTable
from dexml.heads import attentionloss
from dexml.heads.attention import attention, groups, pooled
from dexml.heads.attentionhead import full_best
from dexml.heads.attentionloss import full_bce
from dexml.heads.attentionnet import AttentionNet, LabelwiseNet, SharedNet
from dexml.heads.features import Positives

LENGTHS = np.array([3, 7, 1, 7, 2])
NOTHING = Positives(np.zeros(6, np.int64), np.zeros(0, np.int64))
SOME = Positives(np.array([0, 1, 3, 3, 4, 4]), np.array([1, 0, 12, 2]))
POSITIVES = Positives(np.array([0, 2, 2, 3, 6, 7]), np.array([0, 12, 5, 1, 5, 12, 7]))


def net(kind: str, n_outputs: int = 13, width: int = 4) -> AttentionNet:
    torch.manual_seed(0)
    if kind == "lwan":
        made: AttentionNet = LabelwiseNet(n_outputs, width)
    else:
        made = SharedNet(n_outputs, width, [3, 2])
    return made.double()


def states() -> Tensor:
    drawn = torch.randn(int(LENGTHS.sum()), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return drawn.requires_grad_()


def naive_logits(one: AttentionNet, states_TD: Tensor) -> Tensor:
    """Of a single text, output by output, the pooled vector first."""
    found = []
    for j in range(len(one.tables[0])):
        weights = torch.softmax(states_TD @ one.tables[0][j], 0)
        m = (weights[:, None] * states_TD).sum(0)
        if isinstance(one, LabelwiseNet):
            found.append(one.weight[j] @ m + one.bias[j])
            continue
        assert isinstance(one, SharedNet)
        x: Any = one.first(m)
        for layer in one.mlp:
            x = layer(x.relu())
        found.append(x.squeeze())
    return torch.stack(found)


def naive_loss(one: AttentionNet, states_ND: Tensor, unknown: Positives) -> Tensor:
    total = states_ND.new_zeros(())
    for i, part in enumerate(states_ND.split(LENGTHS.tolist())):
        target = torch.zeros(len(one.tables[0]), dtype=torch.float64)
        target[POSITIVES.ids[POSITIVES.indptr[i] : POSITIVES.indptr[i + 1]]] = 1
        known = torch.ones(len(target), dtype=torch.float64)
        known[unknown.ids[unknown.indptr[i] : unknown.indptr[i + 1]]] = 0
        terms = F.binary_cross_entropy_with_logits(naive_logits(one, part), target, reduction="none")
        total = total + (known * terms).sum()
    return total


@pytest.mark.parametrize("kind", ["shared", "lwan"])
@pytest.mark.parametrize("tile", [1, 7, 99])
@pytest.mark.parametrize("unknown", [NOTHING, SOME], ids=["all", "some left out"])
def test_tiles_give_the_plain_loss_and_gradient(
    kind: str, tile: int, unknown: Positives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attentionloss, "CELLS", 10)
    one, plain, fast = net(kind), states(), states()
    expected = naive_loss(one, plain, unknown)
    wanted = torch.autograd.grad(expected, [plain, *one.parameters()])
    found = full_bce(one, fast, LENGTHS, POSITIVES, unknown, tile)
    grads = torch.autograd.grad(2 * found, [fast, *one.parameters()])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, 2 * b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["shared", "lwan"])
def test_the_best_are_those_of_all_logits_and_equals_go_to_the_smaller_id(kind: str) -> None:
    one = net(kind)
    with torch.no_grad():
        for table in one.tables:
            table[9] = table[2]
        ids, scores = full_best(one, states(), LENGTHS, 5)
        for i, part in enumerate(states().split(LENGTHS.tolist())):
            whole = naive_logits(one, part).sigmoid()
            order = sorted(range(13), key=lambda j: (-round(float(whole[j]), 9), j))[:5]
            assert ids[i].tolist() == order
            torch.testing.assert_close(scores[i], whole[order], rtol=0, atol=1e-12)


def test_padding_takes_no_part() -> None:
    for pads in (0, 3):
        padded = torch.cat([torch.tensor([[[1.0, 2.0]]]), torch.zeros(1, pads, 2)], 1)
        mask = torch.arange(1 + pads)[None] < 1
        weights = attention(padded, torch.tensor([[1.0, 0.0]]), mask)
        assert weights[0, 1:].abs().sum() == 0
        assert pooled(weights, padded).tolist() == [[[1, 2]]]


def test_a_text_alone_has_the_logits_it_has_among_longer_ones() -> None:
    one = net("shared")
    with torch.no_grad():
        _, together = full_best(one, states(), LENGTHS, 13)
        for i, part in enumerate(states().split(LENGTHS.tolist())):
            _, alone = full_best(one, part, LENGTHS[i : i + 1], 13)
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def by_hand() -> tuple[Tensor, Tensor]:
    """Tokens (1, 0) and (0, 1); queries (ln 3, 0) and (0, 0)."""
    return torch.eye(2, dtype=torch.float64)[None], torch.tensor([[math.log(3), 0], [0, 0]], dtype=torch.float64)


def shared_by_hand() -> SharedNet:
    one = SharedNet(2, 2, [2]).double()
    with torch.no_grad():
        one.query.copy_(by_hand()[1])
        one.first.weight.copy_(torch.eye(2))
        one.first.bias.zero_()
        last: Any = one.mlp[0]
        last.weight.copy_(torch.tensor([[2.0, -2.0]]))
        last.bias.fill_(0.5)
    return one


def logits(one: AttentionNet, tokens: int) -> Tensor:
    x = by_hand()[0]
    mask = torch.arange(2)[None] < tokens
    return one.logits(x, one.values(x), mask, *one.tables)[0]


def test_the_shared_mlp_by_hand() -> None:
    x, query = by_hand()
    weights = attention(x, query, torch.ones(1, 2).bool())
    torch.testing.assert_close(weights[0].T, torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64))
    one = shared_by_hand()
    found = logits(one, 2)
    torch.testing.assert_close(found, torch.tensor([1.5, 0.5], dtype=torch.float64))
    torch.testing.assert_close(found.sigmoid(), torch.tensor([0.817574, 0.622459]).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(one, 1), torch.tensor([2.5, 2.5], dtype=torch.float64))
    targets = torch.tensor([1.0, 0.0], dtype=torch.float64)
    each = F.binary_cross_entropy_with_logits(found, targets, reduction="none")
    torch.testing.assert_close(each, torch.tensor([0.201413, 0.974077]).double(), rtol=0, atol=1e-6)
    mean = full_bce(one, x[0], np.array([2]), Positives(np.array([0, 1]), np.array([0])), NOTHING, 99) / 2
    assert float(mean.detach()) == pytest.approx(0.587745, abs=1e-6)


def test_weights_of_each_label_by_hand() -> None:
    one = LabelwiseNet(2, 2).double()
    with torch.no_grad():
        one.query.copy_(by_hand()[1])
        one.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 3.0]]))
        one.bias.copy_(torch.tensor([0.1, -0.2]))
    torch.testing.assert_close(logits(one, 2), torch.tensor([1.35, 0.8], dtype=torch.float64))


def test_all_labels_as_candidates_have_the_logits_of_full_attention() -> None:
    one = net("shared")
    assert isinstance(one, SharedNet)
    for texts, layout in groups(LENGTHS):
        x = layout.take(states())
        cand = torch.arange(13).expand(len(texts), -1)
        found = one.candidates(x, layout.mask, cand)
        torch.testing.assert_close(found, one.logits(x, one.values(x), layout.mask, *one.tables), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
def test_queries_that_are_no_candidates_have_no_gradient(sparse: bool) -> None:
    torch.manual_seed(0)
    one = SharedNet(13, 4, [3], sparse).double()
    assert isinstance(one.query, RowTable) is sparse
    cand = torch.tensor([[1, 4, 5], [4, 1, 12]])
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    one.candidates(x, torch.ones(2, 3).bool(), cand).square().sum().backward()
    assert one.query.grad is not None
    assert one.query.grad.is_sparse is sparse
    touched = one.query.grad.to_dense().abs().sum(1)
    assert touched.nonzero()[:, 0].tolist() == [1, 4, 5, 12]


def test_parameter_counts_of_the_paper() -> None:
    def count(width: int, sizes: list[int]) -> int:
        one = SharedNet(1, width, sizes)
        return sum(p.numel() for p in one.parameters()) - one.query.numel()

    assert count(512, [256]) == 131_585
    assert count(1024, [512, 256]) == 656_385
    assert 30_938 * 512 == 15_840_256 and SharedNet(4_096, 512, [1]).query.numel() == 2_097_152


def test_queries_start_within_the_bound_of_xavier() -> None:
    query = SharedNet(40, 60, [3]).query
    bound = math.sqrt(6 / 100)
    assert 0.9 * bound < query.abs().max() <= bound
