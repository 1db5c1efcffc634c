"""What fresh labels tell of the others: an exact linear drift is undone, any drift gets smaller."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dexml.labels.drift import HELD_OUT, RIDGE, Drift


def cloud(n: int, width: int, seed: int) -> torch.Tensor:
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, width)))
    return F.normalize(rows, dim=1)


def naive_map(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """W of min |[old, 1] W - (new - old)|^2 + RIDGE |W|^2 over the labels that are not held out."""
    rows = [i for i in range(len(old)) if i % HELD_OUT != HELD_OUT - 1]
    a = np.hstack([old[rows].numpy(), np.ones((len(rows), 1))])
    b = (new - old)[rows].numpy()
    stacked = np.vstack([a, np.sqrt(RIDGE) * np.eye(a.shape[1])])
    solution = np.linalg.lstsq(stacked, np.vstack([b, np.zeros((a.shape[1], b.shape[1]))]), rcond=None)[0]
    return torch.from_numpy(solution)


def test_the_linear_map_is_the_ridge_solution() -> None:
    old, new = cloud(60, 5, 0), cloud(60, 5, 1)
    drift = Drift(5, kernel=False, normalize=True, like=old)
    drift.learn(old, new)
    torch.testing.assert_close(drift.map, naive_map(old, new), rtol=1e-9, atol=1e-11)


def test_what_the_rows_were_moved_by_is_learnt_once() -> None:
    """After fresh labels that are where they were moved to, the map is small."""
    old = cloud(400, 5, 0)
    drift = Drift(5, kernel=False, normalize=False, like=old)
    drift.learn(old, old + 0.3)
    first = drift.map[-1].norm()
    bank = old.clone()
    drift.move_(bank)
    drift.learn(bank, bank)
    assert float(drift.map[-1].norm()) < 0.1 * float(first)


@pytest.mark.parametrize("kernel", [False, True])
def test_rows_that_were_not_fresh_come_nearer(kernel: bool) -> None:
    old = cloud(900, 8, 0)
    turn = torch.linalg.matrix_exp(0.2 * torch.from_numpy(np.random.default_rng(2).standard_normal((8, 8))).tril())
    new = F.normalize(old @ turn + 0.2 * torch.sin(4 * old), dim=1)
    drift = Drift(8, kernel, normalize=True, like=old)
    drift.learn(old[:600], new[:600])
    bank = old[600:].clone()
    drift.move_(bank)
    before, after = (old[600:] - new[600:]).norm(dim=1).mean(), (bank - new[600:]).norm(dim=1).mean()
    assert float(after) < (0.45 if kernel else 0.6) * float(before)
    assert drift.after == pytest.approx(float(after), rel=0.2)
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(300, dtype=bank.dtype))


def test_a_bfloat16_bank_is_moved_like_a_wide_one() -> None:
    old = cloud(80, 5, 0).float()
    drift = Drift(5, kernel=True, normalize=True, like=old)
    drift.learn(old, cloud(80, 5, 1).float())
    stored, wide = old.bfloat16(), old.bfloat16().float()
    drift.move_(stored)
    drift.move_(wide)
    torch.testing.assert_close(stored.float(), wide, atol=0.01, rtol=0.01)


def test_few_fresh_labels_are_no_error() -> None:
    old = cloud(3, 5, 0)
    drift = Drift(5, kernel=True, normalize=True, like=old)
    drift.learn(old[:1], old[1:2])
    drift.learn(old, old)
    assert drift.before == drift.after == 0.0
