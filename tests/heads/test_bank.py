"""The label bank in a step: what it is equal to, what it conserves, and one process equals many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexml.config import ConfigError
from dexml.data.batching import Batch
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.heads.bank import BankEncoder
from tests.helpers.banksteps import BANK, CASES, SIZES, make_head, steps
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bank")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    return root


@pytest.fixture(scope="module")
def by_processes(root: Path) -> dict[int, dict[str, np.ndarray]]:
    found = {}
    for n in (1, 2, 3):
        out = root / f"{n}.npz"
        run_ranks(n, "tests.helpers.banksteps", str(root), str(out))
        with np.load(out) as saved:
            found[n] = {name: saved[name] for name in saved.files}
    return found


def bank_head(root: Path, **keys: Any) -> BankEncoder:
    head = make_head(root, World(), **BANK | keys)
    assert isinstance(head, BankEncoder)
    return head


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_one_process_equals_many(by_processes: dict[int, dict[str, np.ndarray]], case: str, n: int) -> None:
    one, many = by_processes[1], by_processes[n]
    names = [name for name in one if name.startswith(f"{case}/")]
    assert len(names) > 3 * 30
    for name in names:
        np.testing.assert_allclose(many[name], one[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("grad", ["weighted", "delayed", "drop"])
@pytest.mark.parametrize("loss", [{}, {"loss_sample": True}, {"loss_criterion": "bce"}])
def test_a_full_budget_is_all_labels(root: Path, grad: str, loss: dict[str, Any]) -> None:
    exact = steps(make_head(root, World(), **loss), World())
    found = steps(bank_head(root, bank_budget=1.0, bank_grad=grad, **loss), World())
    for step, expected in zip(found, exact, strict=True):
        assert step.keys() > expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(step[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


def test_a_step_compares_with_all_labels_and_encodes_the_budget(root: Path) -> None:
    head = bank_head(root)
    ready = head.prepare(Batch(np.arange(11), 0, 0))
    stats = head.accumulate(ready)
    assert len(ready.pool) == 29
    assert stats.labels == head.bank.budget == 22
    assert set(ready.cells.kept_labels) <= set(np.flatnonzero(head.bank.age_S.numpy() == 1))


def test_delayed_gradients_are_all_applied_in_the_end(root: Path) -> None:
    """What was pushed through the encoder and what is owed add up to the gradients of all rows."""
    bank = bank_head(root, bank_grad="delayed").bank
    rng = np.random.default_rng(0)
    applied, whole = torch.zeros(29, 32), torch.zeros(29, 32)
    for step in range(12):
        grad_SD = torch.from_numpy(rng.standard_normal((29, 32)))
        fresh = bank.choose(np.array([step, step + 3]), lambda: torch.from_numpy(rng.random(29)))
        applied[fresh.ids] += bank.due(fresh, grad_SD.clone()).float()
        whole += grad_SD
    assert bank.owed_SD is not None
    torch.testing.assert_close(applied + bank.owed_SD, whole, rtol=1e-6, atol=1e-5, check_dtype=False)


def test_weighted_gradients_are_those_of_all_labels_on_average(root: Path) -> None:
    bank = bank_head(root, bank_grad="weighted", bank_budget=0.5).bank
    grad_SD = torch.from_numpy(np.random.default_rng(0).standard_normal((29, 32)))
    heavy = torch.zeros(29).index_fill_(0, torch.tensor([4, 9]), 1.0)
    total, rounds = torch.zeros_like(grad_SD), 29 * 5
    for _ in range(rounds):
        fresh = bank.choose(np.array([1, 7]), heavy.clone)
        total[fresh.ids] += bank.due(fresh, grad_SD)
    torch.testing.assert_close(total / rounds, grad_SD, rtol=0.05, atol=0)


def test_no_row_grows_older_than_a_round(root: Path) -> None:
    bank = bank_head(root, bank_mined=0.0, bank_budget=0.3).bank
    rng, oldest = np.random.default_rng(0), 0
    for _ in range(40):
        fresh = bank.choose(np.sort(rng.choice(29, 3, replace=False)), lambda: torch.zeros(29))
        assert len(fresh.ids) == bank.budget
        bank.renew(fresh.ids, torch.randn(len(fresh.ids), 32, dtype=torch.float64))
        bank.due(fresh, torch.ones(29, 32))
        oldest = max(oldest, int(bank.age_S.max()))
    assert oldest <= -(-29 // (bank.budget - 3))


@pytest.mark.parametrize("case", ["weighted", "delayed", "bf16"])
def test_a_saved_bank_goes_on_as_if_nothing_had_happened(root: Path, tmp_path: Path, case: str) -> None:
    straight = bank_head(root, **CASES[case])
    straight.accumulate(straight.prepare(Batch(np.arange(9), 0, 0)))
    straight.encoder.zero_grad()
    straight.bank.save_shard(tmp_path)
    again = bank_head(root, **CASES[case])
    again.encoder.load_state_dict(straight.encoder.state_dict())
    again.bank.load(tmp_path)
    for one, two in zip(steps(straight, World()), steps(again, World()), strict=True):
        for name, value in one.items():
            assert name not in two or np.array_equal(two[name], value), name


def test_the_bank_of_another_model_is_refused(root: Path, tmp_path: Path) -> None:
    head = bank_head(root)
    head.bank.save_shard(tmp_path)
    next(iter(head.encoder.parameters())).data.add_(1e-3)
    with pytest.raises(DataError, match="bank of another model"):
        head.bank.load(tmp_path)
    with pytest.raises(DataError, match="other labels or settings"):
        bank_head(root, bank_grad="delayed").bank.load(tmp_path)
    with pytest.raises(DataError, match="is missing"):
        head.bank.load(tmp_path / "elsewhere")


def test_a_budget_below_the_batch_s_own_labels_is_refused(root: Path) -> None:
    message = r"bank_budget 0.2 is 6 labels a step, but 32 points have about 2\d labels of their own: set it to 0.9"
    with pytest.raises(ConfigError, match=message):
        bank_head(root, bank_budget=0.2, bsz=32)


@pytest.mark.parametrize(("bsz", "budget", "told"), [(32, 0.95, "1"), (32, 1, ""), (4, 0.5, "0.53"), (4, 0.53, "")])
def test_a_budget_that_the_batch_s_own_labels_nearly_fill_is_told(
    root: Path, caplog: pytest.LogCaptureFixture, bsz: int, budget: float, told: str
) -> None:
    bank_head(root, bank_budget=budget, bsz=bsz)
    warning = rf"but {bsz} points .* of their own: too few are left .* set it to {told} or more, or lower bsz"
    assert bool(re.search(warning, caplog.text)) is bool(told)


def test_filling_makes_all_rows_young(root: Path) -> None:
    head = bank_head(root)
    steps(head, World())
    assert 0 < int(head.bank.age_S.max()) <= len(SIZES)
    head.bank.fill(torch.ones(29, 32))
    assert int(head.bank.age_S.max()) == 0 and bool((head.bank.vectors_SD == 1).all())
