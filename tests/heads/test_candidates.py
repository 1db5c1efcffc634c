"""Candidates of texts: the worked examples of clusters {0,1,2}, {3,4}, {5,6}, and a slow twin with loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.heads.candidates import Candidates, Groups, Overflow, Truth, bce_sum, candidates, choose, dots, top

TOY = Groups.of(torch.tensor([[0, 1, 2], [3, 4, -1], [5, 6, -1]]), 7)
G = torch.tensor([[2.0, -1.0, 0.0]])
LOGITS = torch.tensor([0.2, 0, -2, 1, -0.5, 0.3, 1.5])  # of labels 0..6
OVERFLOWS: tuple[Overflow, ...] = ("append", "replace", "drop")


def truth(groups: Groups, *labels: list[int]) -> Truth:
    indptr = torch.tensor(np.cumsum([0, *map(len, labels)]))
    return groups.truth(indptr, torch.tensor([label for row in labels for label in row], dtype=torch.int64))


def toy(*labels: list[int], overflow: Overflow = "append", b: int = 2, g: Tensor = G) -> Candidates:
    known = truth(TOY, *labels)
    return candidates(TOY, choose(g.expand(len(labels), -1), b, known.groups(TOY)), known, overflow)


def row(found: Candidates, i: int = 0) -> tuple[list[int], list[int]]:
    real = found.real[i]
    return TOY.labels(found.place[i, real]).tolist(), found.target[i, real].int().tolist()


def loss(found: Candidates) -> float:
    logits = LOGITS[TOY.labels(found.place[found.real])]
    return float(bce_sum(logits, found.targets) / len(logits))


# --- the worked examples


def test_true_clusters_come_first() -> None:
    assert row(toy([3])) == ([3, 4, 0, 1, 2], [1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("overflow", "labels", "target", "value"),
    [
        ("append", [0, 1, 2, 5, 6, 3], [1, 0, 0, 1, 0, 1], 0.664541),
        ("replace", [0, 3, 2, 5, 6], [1, 1, 0, 1, 0], 0.658819),
        ("drop", [0, 1, 2, 5, 6], [1, 0, 0, 1, 0], 0.734797),
    ],
)
def test_positives_that_do_not_fit(overflow: Overflow, labels: list[int], target: list[int], value: float) -> None:
    found = toy([0, 3, 5], overflow=overflow)
    assert row(found) == (labels, target)
    assert loss(found) == pytest.approx(value, abs=1e-6)
    known = truth(TOY, [0, 3, 5]).groups(TOY)
    assert float(bce_sum(G, known) / 3) == pytest.approx(0.711112, abs=1e-6)


def test_the_loss_of_one_text() -> None:
    found = toy([3])
    label_loss = bce_sum(torch.tensor([1, -0.5, 0.2, 0, -2]), found.targets) / 5
    group_loss = bce_sum(G, truth(TOY, [3]).groups(TOY)) / 3
    assert float(label_loss) == pytest.approx(0.481111, abs=1e-6)
    assert float(group_loss) == pytest.approx(1.377779, abs=1e-6)


def test_padding_is_not_in_the_mean() -> None:
    found = toy([3], [5], g=torch.tensor([[2.0, -1, 0], [-2, 1, 0]]))
    assert row(found, 1) == ([5, 6, 3, 4], [1, 0, 0, 0])
    logits = torch.tensor([1, -0.5, 0.2, 0, -2, 1.5, -1, 0.3, -0.2])
    assert float(bce_sum(logits, found.targets) / 9) == pytest.approx(0.485858, abs=1e-6)


def test_logits_that_would_tie_as_probabilities_are_told_apart() -> None:
    assert choose(torch.tensor([[17.0, 18, 0]]), 1, torch.tensor([[True, True, False]])).tolist() == [[1]]


def test_thirty_positives_in_thirty_clusters_are_all_there() -> None:
    groups = Groups.of(torch.arange(60).view(30, 2), 60)
    labels = list(range(0, 60, 2))
    known = truth(groups, labels)
    found = candidates(groups, choose(torch.zeros(1, 30), 2, known.groups(groups)), known)
    assert sorted(groups.labels(found.place[found.target]).tolist()) == labels
    assert int(found.real.sum()) == 32


# --- order


def test_the_best_come_first_and_of_equals_the_smaller_id() -> None:
    score = torch.tensor([[1.0, -0.0, 3, 0.0, 3, -torch.inf, -5]])
    assert top(score, 9).tolist() == [[2, 4, 0, 1, 3, 6, 5]]
    ids = torch.tensor([[9, 8, 7, 6, 5, -1, 3]])
    assert top(score, 4, ids).tolist() == [[4, 2, 0, 3]]


def test_order_against_sorting() -> None:
    rng = torch.Generator().manual_seed(0)
    score = torch.randint(-3, 3, (50, 40), generator=rng).float() * torch.tensor([1e-30, 1e30]).repeat(20)
    first = torch.rand((50, 40), generator=rng) < 0.2
    for scores, firsts, got in zip(score.tolist(), first.tolist(), top(score, 11, None, first).tolist(), strict=True):
        assert got == sorted(range(40), key=lambda i: (-firsts[i], -scores[i], i))[:11]


# --- the slow twin


def naive(groups: Groups, g: list[float], labels: list[int], b: int, overflow: str) -> tuple[list[int], list[int]]:
    members = [[label for label in row if label >= 0] for row in groups.label_at.tolist()]
    order = sorted(range(len(g)), key=lambda c: (not set(members[c]) & set(labels), -g[c], c))
    found = [label for c in order[:b] for label in members[c]]
    target = [int(label in labels) for label in found]
    for label in labels:
        if label in found or not any(label in row for row in members):
            continue
        if overflow == "append":
            found.append(label)
            target.append(1)
        elif overflow == "replace" and 0 in target:
            found[target.index(0)] = label
            target[target.index(0)] = 1
    return found, target


def some_groups(rng: np.random.Generator, n_labels: int) -> Groups:
    """Ragged groups, one label in ten without one."""
    k = int(rng.integers(1, 9))
    of = rng.integers(0, k, n_labels)
    rows = [np.flatnonzero((of == c) & (np.arange(n_labels) % 10 != 9)) for c in range(k)]
    width = max(1, *map(len, rows))
    padded = [np.pad(each, (0, width - len(each)), constant_values=-1) for each in rows]
    return Groups.of(torch.from_numpy(np.stack(padded)), n_labels)


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_candidates_are_those_of_the_loop(overflow: Overflow) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        n_labels = int(rng.integers(1, 40))
        groups = some_groups(rng, n_labels)
        b = int(rng.integers(1, groups.count + 1))
        labels = [np.flatnonzero(rng.random(n_labels) < 0.2).tolist() for _ in range(4)]
        g = torch.from_numpy(rng.integers(-2, 3, (4, groups.count))).float()
        known = truth(groups, *labels)
        found = candidates(groups, choose(g, b, known.groups(groups)), known, overflow)
        for i in range(4):
            expected = naive(groups, g[i].tolist(), labels[i], b, overflow)
            real = found.real[i]
            got = groups.labels(found.place[i, real]).tolist(), found.target[i, real].int().tolist()
            assert got == expected
        assert not found.target[~found.real].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dots_are_products_with_gathered_rows(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, table = (
        torch.randn(4, 5, dtype=dtype, requires_grad=True),
        torch.randn(9, 5, dtype=dtype, requires_grad=True),
    )
    place = torch.tensor([[3, -1, 8, 0], [-1, -1, -1, -1], [0, 1, 2, 3], [8, 3, -1, -1]])
    got = dots(query, table, place)
    wanted = (table[place.clamp(min=0)] * query[:, None]).sum(-1)[place >= 0]
    torch.testing.assert_close(got, wanted)
    weight = torch.arange(1, len(got) + 1, dtype=dtype)
    for one, two in zip(
        torch.autograd.grad((got * weight).sum(), [query, table]),
        torch.autograd.grad((wanted * weight).sum(), [query, table]),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def test_shards_of_the_table_add_up() -> None:
    torch.manual_seed(0)
    found = toy([0, 3, 5], [])
    query, table = torch.randn(2, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    whole = bce_sum(dots(query, table, found.place), found.targets)
    parts = [found.within(3 * r, 3 * r + 3) for r in range(3)]
    values = [bce_sum(dots(query, table[3 * r : 3 * r + 3], part.place), part.targets) for r, part in enumerate(parts)]
    torch.testing.assert_close(torch.stack(values).sum(), whole)


def test_no_candidates_at_all() -> None:
    query, table = torch.randn(2, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    got = bce_sum(dots(query, table, torch.full((2, 3), -1)), torch.zeros(0))
    got.backward()
    assert float(got.detach()) == 0
    assert query.grad is not None and table.grad is not None and not query.grad.any() and not table.grad.any()


def test_more_negatives_stand_at_the_end() -> None:
    more = toy([3]).plus(torch.tensor([[7, -1]]))
    assert row(more) == ([3, 4, 0, 1, 2, 6], [1, 0, 0, 0, 0, 0])
