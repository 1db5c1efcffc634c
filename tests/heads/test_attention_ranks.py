"""Heads on token states: one process equals two and three, with real processes, float64, dropout on, uneven batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from dexml.heads.shortlists import Shortlists
from tests.heads.attention_step import CASES, run_config
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model, toy_config
from tests.helpers.processes import run_ranks
from tests.training.runs import train

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    root = tmp_path_factory.mktemp("attention")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    train(root, **run_config())
    found = {}
    for n in (1, 2, 3):
        run_ranks(n, "tests.heads.attention_step", str(root), str(root / f"{n}.npz"))
        with np.load(root / f"{n}.npz") as saved:
            found[n] = {name: saved[name] for name in saved.files}
    return found


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_two_steps_and_what_is_found_after_them(steps: dict[int, Found], case: str, n: int) -> None:
    one, many = steps[1], steps[n]
    names = [name for name in one if name.startswith(f"{case}/")]
    assert len(names) > 10
    for name in names:
        tolerance = 1e-6 if name.endswith("/scores") else 1e-9  # scores leave as float32
        np.testing.assert_allclose(many[name], one[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_cases_differ(steps: dict[int, Found]) -> None:
    losses = {case: round(float(steps[1][f"{case}/loss"][1]), 9) for case in CASES}
    assert len(set(losses.values())) >= len(CASES) - 1, losses


@pytest.mark.parametrize("n_points", [pytest.param(20, marks=pytest.mark.heavy), 19])
def test_a_whole_run_over_both_levels(tmp_path: Path, n_points: int) -> None:
    make_toy(tmp_path / "Datasets" / "Toy", n_trn=n_points, n_tst=10, n_labels=12)
    make_model(tmp_path / "model")
    keys = {**run_config(), "cluster_size": 3, "beam_width": 2, "num_val_points": 0, "word_dropout": 0, "eval_topk": 6}
    keys |= {"lstm_dropout": 0, "num_threads": 1}
    runs = {}
    for n in (1, 2):
        name = f"run-{n}"
        settings = toy_config(tmp_path, **{**keys, "expname": name, "bsz": 4 // n})
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        run_ranks(n, "train", str(tmp_path / "run.yaml"))
        runs[n] = tmp_path / "Results" / "DEXML" / "Toy" / name
    lists = {n: Shortlists.open(run) for n, run in runs.items()}
    assert np.array_equal(lists[1].ids, lists[2].ids)
    np.testing.assert_allclose(lists[1].scores, lists[2].scores, atol=1e-6)
    for place in ("level-0/best", "best"):
        for file in ("model.safetensors", "head.safetensors"):
            one, two = (load_file(runs[n] / place / file) for n in (1, 2))
            for name, value in one.items():
                np.testing.assert_allclose(two[name], value, atol=1e-6, err_msg=f"{place} {name}")
    for place in ("level-0", "."):
        one, two = (told(runs[n] / place) for n in (1, 2))
        assert one == pytest.approx(two, abs=1e-4) and len(one) > 5


def told(run: Path) -> dict[str, float]:
    """The losses and metrics of a run."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = {f"loss {i}": json.loads(line)["loss"] for i, line in enumerate(lines)}
    found |= {name: value for name, value in json.loads((run / "metrics.json").read_text()).items() if "@" in name}
    assert lines
    return found
