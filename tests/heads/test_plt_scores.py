"""Products of some pairs against all products, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dexml.heads.pltscores import pair_scores


@pytest.mark.parametrize(("texts", "nodes", "share"), [(5, 9, 0.3), (1, 1, 1.0), (4, 70, 0.05), (3, 6, 0.0)])
def test_pairs_are_cells_of_the_dense_product(texts: int, nodes: int, share: float) -> None:
    rng = np.random.default_rng(3)
    cells = rng.random((texts, nodes)) < share
    text, node = (torch.from_numpy(i) for i in np.nonzero(cells))
    indptr = torch.from_numpy(np.append(0, cells.sum(1).cumsum()))
    z, weight = (torch.randn(n, 8, dtype=torch.float64, requires_grad=True) for n in (texts, nodes))
    ours, dense = pair_scores(z, weight, indptr, node), (z @ weight.T)[text, node]
    torch.testing.assert_close(ours, dense)
    grad = torch.randn_like(dense)
    for a, b in zip(*(torch.autograd.grad(x, (z, weight), grad) for x in (ours, dense)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_pair_has_one_score_whatever_stands_beside_it() -> None:
    z, weight = torch.randn(40, 33), torch.randn(50, 33)
    every = torch.arange(50).repeat(40)
    whole = pair_scores(z, weight, torch.arange(41) * 50, every).view(40, 50)
    alone = pair_scores(z[7:8], weight, torch.tensor([0, 2]), torch.tensor([49, 3]))
    assert alone.tolist() == whole[7, [49, 3]].tolist()
