"""Searches over products of heads against brute force, ties and pads included."""

from __future__ import annotations

from itertools import islice
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dexml.heads.code_search import best_first, product_topk, ranked


def brute_force(parts: list[np.ndarray], n_codes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All sums, sorted by (-sum, code)."""
    total = np.zeros(1, parts[0].dtype)
    for part in parts:
        total = (total[:, None] + part).ravel()
    order = np.argsort(-total[:n_codes], kind="stable")[:k]
    return order, total[order]


def random_case(rng: np.random.Generator, integer: bool) -> tuple[list[np.ndarray], int, int]:
    """One to four heads of up to six digits; up to half of the codes are pads."""
    lengths = rng.integers(1, 7, rng.integers(1, 5))
    n = int(prod(lengths))
    parts = [rng.integers(-3, 4, m).astype(float) if integer else rng.normal(size=m) for m in lengths]
    return parts, int(rng.integers(-(-n // 2), n + 1)), int(rng.integers(1, n + 3))


@pytest.mark.parametrize("integer", [True, False])
def test_the_fold_and_best_first_equal_brute_force(integer: bool) -> None:
    rng = np.random.default_rng(int(integer))
    for _ in range(1500):
        parts, n_codes, k = random_case(rng, integer)
        wanted, sums = brute_force(parts, n_codes, k)
        codes, scores = product_topk([torch.from_numpy(part)[None] for part in parts], n_codes, k)
        assert codes[0].tolist() == wanted.tolist()
        np.testing.assert_array_equal(scores[0], sums)
        found = list(islice(best_first(parts, n_codes), k))
        assert [code for code, _ in found] == wanted.tolist()


def test_two_heads_in_a_batch() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        lengths = rng.integers(1, 9, 2)
        n_codes = int(prod(lengths) - rng.integers(0, lengths[1]))
        k = int(rng.integers(1, n_codes + 1))
        parts = [torch.from_numpy(rng.integers(-9, 9, (5, m)) / 7) for m in lengths]
        codes, scores = product_topk(parts, n_codes, k)
        dense = (parts[0][:, :, None] + parts[1][:, None]).flatten(1)[:, :n_codes]
        wanted = dense.sort(dim=1, descending=True, stable=True)
        assert torch.equal(codes, wanted.indices[:, :k])
        assert torch.equal(scores, wanted.values[:, :k])


@pytest.mark.parametrize(
    ("p1", "n_codes", "k", "ids", "values"),
    [
        ((0.6, 0.3, 0.1), 9, 5, [0, 1, 3, 2, 4], [0.30, 0.18, 0.15, 0.12, 0.09]),
        ((0.1, 0.3, 0.6), 7, 3, [6, 3, 4], [0.30, 0.15, 0.09]),
        ((0.1, 0.3, 0.6), 9, 3, [6, 7, 3], [0.30, 0.18, 0.15]),
    ],
)
def test_products_of_probabilities(
    p1: tuple[float, ...], n_codes: int, k: int, ids: list[int], values: list[float]
) -> None:
    parts = [torch.tensor([p]).double().log() for p in (p1, (0.5, 0.3, 0.2))]
    codes, scores = product_topk(parts, n_codes, k)
    assert codes[0].tolist() == ids
    assert scores[0].exp().tolist() == pytest.approx(values)


def test_probabilities_are_multiplied_not_logits() -> None:
    logits = [torch.tensor([[-3.0, 1.0]]), torch.tensor([[-2.0, 1.0]])]
    assert product_topk([o.log_softmax(1) for o in logits], 4, 1)[0].item() == 3
    assert torch.kron(logits[0], logits[1]).argmax() == 0


class Largest(TorchDispatchMode):
    """The most elements that any tensor has."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple) else (out,):
            self.size = max(self.size, x.numel() if isinstance(x, Tensor) else 0)
        return out


def test_no_array_of_all_codes_is_made() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(8, m, generator=generator) for m in (8761, 321)]
    with Largest() as largest:
        codes, scores = product_topk(parts, 2_812_281, 100)
    assert largest.size <= 8 * 8761
    wanted = (parts[0][0][:, None] + parts[1][0]).flatten().topk(100)
    assert torch.equal(codes[0], wanted.indices)
    assert torch.equal(scores[0], wanted.values)


def test_best_first_opens_few_codes_of_many() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.normal(size=m) for m in (8761, 321)]
    codes, _ = product_topk([torch.from_numpy(part)[None] for part in parts], 2_812_281, 100)
    assert [code for code, _ in islice(best_first(parts, 2_812_281), 100)] == codes[0].tolist()


@pytest.mark.parametrize("k", [1, 3, 7, 9])
def test_ranked_takes_the_smaller_column_of_equals(k: int) -> None:
    scores = torch.tensor([[1.0, 2, 2, 2, 0, 2, 1], [0, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]])
    wanted = scores.sort(dim=1, descending=True, stable=True)
    values, columns = ranked(scores, k)
    assert torch.equal(values, wanted.values[:, :k])
    assert torch.equal(columns, wanted.indices[:, :k])
