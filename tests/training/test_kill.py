"""A run that is killed with SIGKILL, at any moment and any number of times, ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.models import toy_config
from tests.training import kills
from tests.training.runs import assert_same_result

SHORTLIST = {
    "net": "dist-de-hnm",
    "neg_type": "shorty",
    "hard_neg_start": 1,
    "hard_neg_topk": 8,
    "num_neg_samples": 2,
    "eval_interval": 1,
}
VARIANTS = {"all": {}, "shortlist": SHORTLIST}


def write(root: Path, expname: str, **keys: Any) -> Path:
    path = root / f"{expname}.yaml"
    path.write_text(yaml.safe_dump(toy_config(root, expname=expname, num_threads=1, **keys)))
    return path


def run_folder(root: Path, expname: str) -> Path:
    return root / "Results" / "DEXML" / "Toy" / expname


def killed_run(start: Callable[[Path], Any], root: Path, name: str, n_kills: int, **keys: Any) -> None:
    """Kills a run `n_kills` times, the last while it exports, and compares its end with an undisturbed run."""
    calm, run = write(root, f"{name}-calm", **keys), run_folder(root, name)
    assert start(calm).wait() == 0
    config = write(root, name, **keys)
    for moment in kills.moments(run, n_kills - 1, seed=n_kills):
        assert kills.kill_at(start(config), run, moment()), "the run ended before it could be killed"
    assert kills.kill_at(start(config), run, kills.while_exporting)
    assert not (run / "metrics.json").exists()
    assert start(config).wait() == 0
    assert_same_result(run, run_folder(root, f"{name}-calm"))
    assert "resuming from" in (run / "log.txt").read_text()
    assert not [path.name for path in run.rglob(".*")], "nothing half-written is left"


@pytest.mark.parametrize("variant", VARIANTS)
def test_three_kills_leave_no_trace(root: Path, variant: str) -> None:
    killed_run(kills.start_fork, root, f"forked-{variant}", 3, save_interval=2, **VARIANTS[variant])


@pytest.mark.heavy
@pytest.mark.parametrize("variant", VARIANTS)
def test_ten_kills_of_the_program_leave_no_trace(root: Path, variant: str) -> None:
    keys = {"num_epochs": 10, "save_interval": 1, **VARIANTS[variant]}
    killed_run(kills.start_program, root, f"program-{variant}", 10, **keys)
