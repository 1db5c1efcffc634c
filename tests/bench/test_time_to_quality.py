"""bench/time_to_quality.py on the toy data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.common import BenchError
from bench.time_to_quality import Goal, Plan, compare, figures, race
from dexml.config import load_config
from dexml.training.trainer import Trainer
from tests.helpers.models import write_config

ROOT = Path(__file__).parents[2]


def test_training_in_turns_is_the_training_of_the_trainer(tmp_path: Path) -> None:
    config, out = write_config(tmp_path, num_epochs=2, eval_interval=1), tmp_path / "out.json"
    words = ["--config", config, "--every", "4", "--threads", "1", "--json", out]
    command = [sys.executable, "bench/time_to_quality.py", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["peer"] is None and found["ratio"] is None
    curve = found["ours"]["runs"][0]["curve"]
    assert [point["step"] for point in curve] == [4, 8, 10]
    assert 0 < curve[0]["minutes"] < curve[1]["minutes"] < curve[2]["minutes"] == found["ours"]["minutes"]["median"]
    assert found["ours"]["reached"] == [True]

    torch.set_num_threads(1)
    cfg = load_config(config)
    Trainer(cfg).fit()
    last = json.loads((cfg.out_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["split"] == "val" and last["step"] == 10
    for name, value in last.items():
        if "@" in name:
            assert curve[-1][name] == pytest.approx(value), name
    assert "nDCG@5 on 40 held-out points" in done.stdout
    assert done.stdout.splitlines()[-1].split()[:3] == ["ours", "0", "10"]


class Scripted:
    """A side whose every step takes half a minute, and a judge that reads the metric off the steps done."""

    def __init__(self, name: str, total: int, metric: Callable[[int], float]) -> None:
        self.name, self.total, self.metric, self.done = name, total, metric, 0

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        if do == "evaluate":
            return {"P@5": self.metric(self.done), "peak_mb": 1.0}
        steps = min(arguments["steps"], self.total - self.done)
        self.done += steps
        return {"steps": self.done, "seconds": 30.0 * steps, "loss": 1.0}


def run_alone(goal: Goal, metric: Callable[[int], float], folder: Path) -> dict[str, Any]:
    side: Any = Scripted("ours", 10, metric)
    return race({"ours": side}, side, {"ours": Plan(steps=10, every=4)}, goal, folder)["ours"]


def test_a_side_stops_where_the_goal_is_reached(tmp_path: Path) -> None:
    run = run_alone(Goal("P@5", 55.0, 100.0), lambda step: 7.0 * step, tmp_path)
    assert (run["step"], run["minutes"], run["reached"]) == (8, 4.0, True)
    assert [point["P@5"] for point in run["curve"]] == [28.0, 56.0]


def test_a_side_stops_at_its_last_step_or_the_limit_of_time(tmp_path: Path) -> None:
    run = run_alone(Goal("P@5", 99.0, 100.0), lambda step: 0.0, tmp_path)
    assert (run["step"], run["minutes"], run["reached"]) == (10, 5.0, False)
    run = run_alone(Goal("P@5", 99.0, 2.0), lambda step: 0.0, tmp_path)
    assert (run["step"], run["reached"]) == (4, False)
    run = run_alone(Goal("P@5", None, 100.0), lambda step: 0.0, tmp_path)
    assert (run["step"], run["reached"]) == (10, True)


def run_of(minutes: float, reached: bool) -> dict[str, Any]:
    return {"curve": [], "minutes": minutes, "step": 1, "reached": reached}


def test_a_peer_that_does_not_get_there_gives_a_lower_bound() -> None:
    ours = [run_of(2, True), run_of(4, True)]
    exact = compare(ours, [run_of(10, True), run_of(12, True)])
    assert exact is not None and exact["minutes"]["all"] == [5, 3] and not exact["at_least"]
    bound = compare(ours, [run_of(10, True), run_of(40, False)])
    assert bound is not None and bound["at_least"]
    assert compare([run_of(2, True), run_of(4, False)], [run_of(10, True)] * 2) is None


def test_figures_have_both_sides_and_their_ratio() -> None:
    found = figures([{"ours": run_of(2, True), "peer": run_of(6, True)}])
    assert found["ours"]["minutes"]["median"] == 2 and found["peer"]["reached"] == [True]
    assert found["ratio"]["minutes"]["median"] == 3
    assert figures([{"ours": run_of(2, True)}])["peer"] is None


def test_a_target_is_a_metric_and_a_number() -> None:
    assert Goal.of("P@5=58", "nDCG@5", 9.0) == Goal("P@5", 58.0, 9.0)
    assert Goal.of("", "nDCG@5", 9.0) == Goal("nDCG@5", None, 9.0)
    with pytest.raises(BenchError, match="--target P@5: give a metric and a percentage, as in P@5=58"):
        Goal.of("P@5", "nDCG@5", 9.0)
