"""The run files of EURLex-4K, with DEXML's keys and values, train on a small folder in DEXML's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dexml.cli import main
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model
from tests.helpers.processes import ROOT

RUNS = sorted(p.stem for p in (ROOT / "configs" / "EURLex-4K").glob("dist-*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with Datasets/EURLex-4K and a small local stand-in for the encoder the configs name."""
    root = tmp_path_factory.mktemp("dexml")
    make_toy(root / "Datasets" / "EURLex-4K", n_labels=100)
    make_model(root / "distilbert-base-uncased", "distilbert", max_position_embeddings=128)
    return root


def test_all_four_are_there() -> None:
    assert [
        *("dist-de-all_decoupled-softmax", "dist-de-all_softmax", "dist-de-all_topk"),
        "dist-de-hnm_decoupled-softmax",
    ] == RUNS


@pytest.mark.parametrize("run", RUNS)
def test_trains_past_the_start_of_mining(folder: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert main(["train", str(ROOT / "configs" / "EURLex-4K" / f"{run}.yaml"), "--num_epochs", "7"]) == 0
    out = folder / "Results" / "DEXML" / "EURLex-4K" / run
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 7
    assert metrics["R@100"] == 100.0
    assert 0 < metrics["P@1"] <= 100
    assert ("mined a shortlist" in (out / "log.txt").read_text()) == ("hnm" in run)
    names = {path.name for path in out.iterdir()}
    assert names >= {"best", "checkpoints", "config.yaml", "log.txt", "metrics.json", "tst_score_mat.npz"}
