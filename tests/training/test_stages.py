"""Levels of AttentionXML: trained in one go, resumed between and within them, finished ones left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from dexml.config import Config, ConfigError
from dexml.training.rundir import RunFolder
from dexml.training.stages import upper_levels
from dexml.training.step import Stepper
from dexml.training.trainer import Trainer
from tests.training.runs import config

KEYS: dict[str, Any] = {
    "net": "attentionxml",
    "cluster_size": 4,
    "beam_width": 3,
    "word_vectors": "random",
    "word_dim": 8,
    "lstm_width": 8,
    "linear_size": "8",
    "num_epochs": 2,
    "eval_interval": 1,
    "save_interval": 2,
    "optim": "lazyadam",
    "clip": "adaptive",
}
FILES = ("model.safetensors", "head.safetensors", "tree.safetensors")


class Killed(Exception):
    pass


def train(cfg: Config, stop: int | None = None) -> dict[str, Any]:
    """The run, cut off before its step number `stop`, those of all levels counted."""
    with pytest.MonkeyPatch.context() as patch:
        real, left = Stepper.step, [stop if stop is not None else -1]

        def step(*args: Any) -> Any:
            left[0] -= 1
            if left[0] == -1 and stop is not None:
                raise Killed
            return real(*args)

        patch.setattr(Stepper, "step", step)
        return Trainer(cfg).fit()


def contents(run: Path) -> dict[str, list[Any]]:
    """Every number of the networks and the tree."""
    files = {f"{place}/{name}": run / place / name for place in ("level-0/best", "best") for name in FILES}
    found = {f"{file} {name}": x.tolist() for file, path in files.items() for name, x in load_file(path).items()}
    assert len(found) > 20
    return found


def test_a_run_that_is_cut_off_in_each_level_ends_as_one_that_is_not(root: Path) -> None:
    calm = config(root, expname="calm", **KEYS)
    metrics = train(calm)
    steps = int(metrics["steps"])  # of the last level; the first has as many
    cut = config(root, expname="cut", **KEYS)
    for stop in (steps - 3, 8):  # in the first level, then in the second: what is left of the first are 4 steps or 5
        with pytest.raises(Killed):
            train(cut, stop)
    first = cut.out_dir / "level-0" / "metrics.json"
    written = first.stat().st_mtime_ns
    again = train(cut)
    assert first.stat().st_mtime_ns == written
    assert contents(cut.out_dir) == contents(calm.out_dir)
    assert {k: v for k, v in again.items() if "@" in k} == {k: v for k, v in metrics.items() if "@" in k}
    assert "resuming from" in (cut.out_dir / "log.txt").read_text()
    assert train(cut) == again


def test_starting_over_keeps_the_old_run_and_trains_every_level_anew(root: Path) -> None:
    cfg = config(root, expname="over", **{**KEYS, "num_epochs": 1})
    first = train(cfg)
    again = train(config(root, expname="over", **{**KEYS, "num_epochs": 1, "resume": "never"}))
    old = cfg.out_dir.with_name("over.1")
    assert contents(old) == contents(cfg.out_dir)
    assert (old / "metrics.json").exists()
    assert first["P@1"] == again["P@1"]


def test_other_settings_are_refused_while_only_the_first_level_is_there(root: Path) -> None:
    with pytest.raises(Killed):
        train(config(root, expname="other", **KEYS), 2)
    with pytest.raises(ConfigError, match=r"level-0 holds a run with other settings \(linear_size: 8 -> 4\)"):
        train(config(root, expname="other", **{**KEYS, "linear_size": "4"}))


def test_upper_levels_are_runs_of_their_own() -> None:
    cfg = Config(dataset="Toy", net="attentionxml", tree_levels="2,5", eval_topk=20, track_metric="P@1", expname="x")
    one, two = upper_levels(cfg, 100)
    assert (one.train_level, two.train_level) == (0, 1)
    assert (one.eval_topk, two.eval_topk) == (4, 20)
    assert (one.track_metric, two.track_metric) == ("nDCG@4", "nDCG@5")
    assert one.out_dir == cfg.out_dir / "level-0"
    assert upper_levels(two, 100) == []
    assert upper_levels(Config(dataset="Toy", net="bilstm"), 100) == []
    (only,) = upper_levels(Config(dataset="Toy", net="attentionxml", cluster_size=8), 5)
    assert (only.eval_topk, only.track_metric) == (1, "nDCG@1")


def test_the_first_level_may_begin_to_average_later() -> None:
    deep = Config(dataset="Toy", net="attentionxml", tree_levels="2,3", swa_every=100, swa_start=2)
    assert [level.swa_start for level in upper_levels(deep, 30)] == [2, 2]
    later = deep.model_copy(update={"first_swa_start": 6})
    assert [level.swa_start for level in upper_levels(later, 30)] == [6, 2] and later.swa_start == 2


def test_the_folder_of_all_levels_is_held_until_the_last_one_is_done(root: Path) -> None:
    cfg = config(root, expname="held", resume="never", **KEYS)
    refused: list[bool] = []

    class Watching(Trainer):
        def _step(self, parts: Any) -> None:
            super()._step(parts)
            with pytest.raises(ConfigError, match="another process is training there"):
                RunFolder(cfg).check(0)
            refused.append(self.cfg.train_level is None)

    Watching(cfg).fit()
    assert set(refused) == {False, True}, "both levels"
    RunFolder(cfg).check(0)
