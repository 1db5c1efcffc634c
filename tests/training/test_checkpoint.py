"""What a checkpoint keeps, which one a resume takes, and which ones stay."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dexml.config import Config
from dexml.heads.base import decayed
from dexml.training.checkpoint import (
    CheckpointError,
    TrainState,
    check_identity,
    checkpoint_path,
    checkpoints,
    forget_after,
    load_checkpoint,
    newest,
    prune,
    read_state,
    save_checkpoint,
)
from dexml.training.directory import verify
from dexml.training.optim import make_optimizer
from dexml.training.rng import rng_state
from tests.helpers import models


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("dexml"), "propagate", True)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2, bias=False))


def some_steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int) -> None:
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()


def save(folder: Path, step: int, best: int | None = None) -> Path:
    model = make_model()
    optimizer = make_optimizer(Config(), decayed(model.parameters(), Config(), 0.1))
    state = TrainState(step=step, best={} if best is None else {"value": 1.0, "step": best})
    return save_checkpoint(folder, state, model, optimizer, [rng_state()], lambda path: None)


def steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints(folder)]


@pytest.mark.parametrize("optim", ["adamw", "adam", "sgd"])
def test_training_goes_on_bit_for_bit(tmp_path: Path, optim: str) -> None:
    cfg, model = Config(optim=optim), make_model()  # type: ignore[arg-type]
    optimizer = make_optimizer(cfg, decayed(model.parameters(), cfg, 0.1))
    some_steps(model, optimizer, 3)
    state = TrainState(
        step=3, updates=2, best={"value": 0.1 + 0.2, "step": 2}, loss_sum=1 / 3, loss_count=3, zero_losses=1,
        loss_scale={"value": 2.0**14, "good": 7}, identity={"config": {"tau": 0.05, "tf_dropout": None}},
    )  # fmt: skip
    path = save_checkpoint(tmp_path, state, model, optimizer, [rng_state()], lambda path: None)
    some_steps(model, optimizer, 3)

    again = make_model()
    new = make_optimizer(cfg, decayed(again.parameters(), cfg, 0.7))
    assert load_checkpoint(path, again, new, rank=0) == state
    some_steps(again, new, 3)
    assert new.param_groups[0]["lr"] == 0.1
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_each_rank_gets_its_own_random_state(tmp_path: Path) -> None:
    model = make_model()
    optimizer = make_optimizer(Config(), decayed(model.parameters(), Config(), 0.1))
    states, expected = [], []
    for rank in range(12):  # two digits, so that 1 is no prefix of 10
        torch.manual_seed(rank)
        states.append(rng_state())
        expected.append(torch.rand(1))
    path = save_checkpoint(tmp_path, TrainState(), model, optimizer, states, lambda path: None)
    for rank in (0, 1, 11):
        load_checkpoint(path, model, optimizer, rank)
        assert torch.equal(torch.rand(1), expected[rank])


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}


def test_what_the_label_side_writes_is_part_of_it(tmp_path: Path) -> None:
    model = make_model()
    optimizer = make_optimizer(Config(), decayed(model.parameters(), Config(), 0.1))
    extra = lambda path: (path / "memory.bin").write_bytes(b"123")  # noqa: E731
    path = save_checkpoint(tmp_path, TrainState(step=5), model, optimizer, [rng_state()], extra)
    assert "memory.bin" in json.loads((path / "manifest.json").read_text())
    (path / "memory.bin").write_bytes(b"124")
    with pytest.raises(CheckpointError, match=r"memory\.bin"):
        verify(path)


# --- which one -------------------------------------------------------------------------------------------------------


def test_the_newest_is_taken_by_number(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in (9, 10, 100):
        save(tmp_path, step)
    (tmp_path / ".step-00000200.tmp").mkdir()
    assert newest(tmp_path) == tmp_path / "step-00000100"


def test_a_damaged_newest_is_named_and_the_one_before_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "model.safetensors").write_bytes(b"")
    assert newest(tmp_path) == tmp_path / "step-00000001"
    assert "step-00000002/model.safetensors: missing or changed" in caplog.text
    assert "trying the one before" in caplog.text


def test_a_run_does_not_start_over_silently_when_all_are_damaged(tmp_path: Path) -> None:
    (save(tmp_path, 2) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="all 1 checkpoints are damaged; start over with --resume never"):
        newest(tmp_path)


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, best=2 if step >= 2 else None)
        prune(tmp_path, keep=2)
    assert steps(tmp_path) == [2, 5, 6]


def test_the_best_of_an_older_checkpoint_stays_while_that_one_may_be_needed(tmp_path: Path) -> None:
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 4)):
        save(tmp_path, step, best)
    prune(tmp_path, keep=2)
    assert steps(tmp_path) == [1, 3, 4]
    save(tmp_path, 5, 4)
    prune(tmp_path, keep=2)
    assert steps(tmp_path) == [4, 5]


def test_pruning_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".step-00000002.tmp").mkdir()
    prune(tmp_path, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_pruning_survives_a_damaged_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step-00000002" / "state.json").write_text("{")
    prune(tmp_path, keep=2)
    assert steps(tmp_path) == [2, 3]


def test_checkpoints_after_a_step_are_forgotten(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    forget_after(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]


# --- whose it is -----------------------------------------------------------------------------------------------------

DATA = {"trn_X.txt": "a", "Y.trn.npz": "b"}


def identity(cfg: Config, **changes: Any) -> dict[str, Any]:
    return {"config": cfg.to_dict(), "data": DATA, "processes": 1, "precision": "fp32", **changes}


def test_the_same_run_may_go_on_with_other_settings_of_place_and_speed() -> None:
    before = json.loads(json.dumps(identity(Config(lr=1e-4))))
    check_identity(Path("c"), before, Config(lr=1e-4, gc_bsz=7, save_interval=3, results_root="x"), identity(Config()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": Config(lr=2e-4, tau=0.1).to_dict()}, r"other settings \(tau: 0.1 -> 0.05, lr: 0.0002 -> 0.0001\)"),
        (
            {"data": {**DATA, "Y.trn.npz": "c"}},
            r"data have changed since \(Y.trn.npz\); start over with --resume never",
        ),
        ({"processes": 4, "precision": "fp32"}, "was written by 4 processes, now there are 1: start as many"),
        ({"config": {**Config().to_dict(), "gone": 1}}, "another version of dexml"),
    ],
)
def test_another_run_is_refused_and_told_what_differs(changes: dict[str, Any], message: str) -> None:
    now = Config()
    with pytest.raises(CheckpointError, match=message):
        check_identity(Path("c"), identity(now, **changes), now, identity(now))


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="name a step-"):
        read_state(tmp_path)
    (tmp_path / "state.json").write_text('{"optimizer_groups": [], "another": 1}')
    with pytest.raises(CheckpointError, match="not of this version"):
        read_state(tmp_path)


def test_a_step_beyond_eight_digits_has_a_place(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 123456789)
    path.mkdir()
    assert checkpoints(tmp_path) == [path]


def test_a_model_with_shared_tensors_is_saved_and_found_again(tmp_path: Path) -> None:
    from dexml.encoders.pretrained import load_backbone
    from dexml.encoders.text import TextEncoder
    from dexml.encoders.weights import load_weights

    folder = models.make_model(tmp_path / "t5", "t5")
    model, other = (TextEncoder(load_backbone(str(folder)), "mean") for _ in range(2))
    optimizer = torch.optim.AdamW(model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    path = save_checkpoint(tmp_path, TrainState(step=3), model, optimizer, [rng_state()], lambda folder: None)
    load_checkpoint(path, other, torch.optim.AdamW(other.parameters()), 0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    fresh = TextEncoder(load_backbone(str(folder)), "mean")
    load_weights(fresh, path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
