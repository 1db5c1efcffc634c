"""Runs of seconds on the toy data set, and what must be equal between two of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dexml.config import Config, load_config
from dexml.hub.bundle import EMBEDDINGS, HEAD
from dexml.training.checkpoint import checkpoints
from dexml.training.trainer import Trainer
from tests.helpers.models import toy_config


def config(root: Path, **keys: Any) -> Config:
    """`toy_config` with these keys; the folder of the run is named by `expname`."""
    return load_config([], toy_config(root, **{"num_threads": 1, **keys}))


def train(root: Path, **keys: Any) -> tuple[Config, dict[str, Any]]:
    cfg = config(root, **keys)
    return cfg, Trainer(cfg).fit()


def started(cfg: Config) -> Trainer:
    """A trainer that is ready for its first step."""
    trainer = Trainer(cfg)
    trainer._build()
    trainer._restore()
    trainer.bar = _NoBar()  # type: ignore[assignment]
    trainer.session.encoder.train()
    return trainer


class _NoBar:
    def tick(self, n: int = 1, note: str = "") -> None: ...


def batches(trainer: Trainer, epoch: int = 0) -> list[Any]:
    from dexml.data.batching import epoch_batches

    found = epoch_batches(trainer.session.train_rows, trainer.batch_size, trainer.cfg.seed, epoch)
    return [trainer._prepare(batch) for batch in found]


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.session.encoder.state_dict().items()}


def result(run: Path) -> dict[str, Any]:
    """Everything a run leaves that does not name its folder or the time: files, and tensors of its last checkpoint."""
    files = [
        "metrics.json",
        "metrics.tsv",
        "calibration.json",
        "best/model.safetensors",
        "best/calibration.json",
    ]
    last = checkpoints(run / "checkpoints")[-1]
    state = json.loads((last / "state.json").read_text())
    state.pop("identity")
    state["cost"].pop("seconds", None)
    bundled = [run / "best" / name for name in (EMBEDDINGS, HEAD) if (run / "best" / name).exists()]
    tensors = {file.stem: load_file(file) for file in (*last.glob("*.safetensors"), *bundled)}
    assert tensors.keys() >= {"model", "optimizer", "rng"}
    found = {name: (run / name).read_bytes() for name in files}
    return {"files": found, "evaluations": evaluations(run), "state": state, "tensors": tensors}


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without time and memory, and with them the tokens and labels of a step."""
    timed = {"seconds", "eval_seconds", "tokens_per_s", "peak_mb"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(timed < entry.keys() for entry in lines)
    return [{name: value for name, value in entry.items() if name not in timed} for entry in lines]


def assert_same_result(one: Path, two: Path) -> None:
    """Bit for bit."""
    a, b = result(one), result(two)
    assert a["state"] == b["state"]
    assert a["evaluations"] == b["evaluations"]
    for name, content in a["files"].items():
        assert content == b["files"][name], name
    assert a["tensors"].keys() == b["tensors"].keys()
    for file, tensors in a["tensors"].items():
        assert tensors.keys() == b["tensors"][file].keys()
        for name, value in tensors.items():
            assert torch.equal(value, b["tensors"][file][name]), f"{file}: {name}"


def assert_goes_on_bit_for_bit(cfg: Config, folder: Path) -> None:
    """A finished run, taken back to its first checkpoint, ends as it did; `folder` is for a copy."""
    shutil.copytree(cfg.out_dir, folder / "whole")
    for path in checkpoints(cfg.out_dir / "checkpoints")[1:]:
        shutil.rmtree(path)
    (cfg.out_dir / "metrics.json").unlink()
    Trainer(cfg).fit()
    assert "resuming from" in (cfg.out_dir / "log.txt").read_text()
    assert_same_result(cfg.out_dir, folder / "whole")


class Killed(Exception):
    pass


def killed_at(cfg: Config, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends after this many steps, before it can save."""
    real = Trainer._tell

    def tell(self: Trainer, *args: Any) -> None:
        real(self, *args)
        if self.state.step == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_tell", tell)
        with pytest.raises(Killed):
            Trainer(cfg).fit()
