"""A run that is killed with SIGKILL, at any moment and any number of times, ends as if nothing had happened."""

from __future__ import annotations

import random
import signal
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
VARIANTS: dict[str, dict[str, Any]] = {"all": {}, "shortlist": SHORTLIST, "classifier": {"net": "dist-clf-net"}}


def write(root: Path, expname: str, **keys: Any) -> Path:
    path = root / f"{expname}.yaml"
    path.write_text(yaml.safe_dump(toy_config(root, expname=expname, num_threads=1, **keys)))
    return path


def run_folder(root: Path, expname: str) -> Path:
    return root / "Results" / "DEXML" / "Toy" / expname


def check_end(run: Path, calm: Path) -> None:
    assert_same_result(run, calm)
    assert "resuming from" in (run / "log.txt").read_text()
    assert not [path.name for path in run.rglob(".*")], "nothing half-written is left"


@pytest.mark.parametrize("variant", VARIANTS)
def test_kills_in_training_saving_evaluating_and_exporting_leave_no_trace(root: Path, variant: str) -> None:
    name, keys = f"forked-{variant}", {"save_interval": 2, **VARIANTS[variant]}
    assert kills.run_to(write(root, f"{name}-calm", **keys)) == 0
    config, run = write(root, name, **keys), run_folder(root, name)
    for seed, moment in enumerate(["saving", "training", "saving", "evaluating", "exporting"]):
        assert kills.run_to(config, moment, seed) == -signal.SIGKILL, moment
        assert not (run / "metrics.json").exists()
    assert kills.run_to(config) == 0
    check_end(run, run_folder(root, f"{name}-calm"))


@pytest.mark.heavy
@pytest.mark.parametrize("variant", VARIANTS)
def test_ten_kills_of_the_program_leave_no_trace(root: Path, variant: str) -> None:
    name, keys = f"program-{variant}", {"num_epochs": 20, "save_interval": 1, **VARIANTS[variant]}
    assert kills.start_program(write(root, f"{name}-calm", **keys)).wait() == 0
    config, run = write(root, name, **keys), run_folder(root, name)
    draw = random.Random(10)
    for number in range(10):
        process = kills.start_program(config)
        saving = number % 3 == 0
        moment = kills.while_saving(run) if saving else kills.after_progress(run, draw.uniform(0, 0.1))
        assert kills.kill_at(process, moment), "the run ended before it could be killed"
    assert kills.start_program(config).wait() == 0
    check_end(run, run_folder(root, f"{name}-calm"))
