"""The benches of the label side: what they measure at a size of nothing, and the configs they make."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from bench import bank, scale

CONFIG = Path(__file__).parents[2] / "configs" / "Iconclass" / "bank.yaml"
SMALL = {"steps": 1, "bsz": 4, "width": 8, "fresh": 64, "mined": 0.5, "dtype": "bf16", "correction": "linear"}


def test_a_step_of_few_labels_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    row = scale.measure(Namespace(**SMALL, threads=1), 500)
    assert row["labels"] == 500 and row["fresh"] == 64
    assert row["seconds"] > 0 and row["peak_mb"] > 0
    assert {"encode labels", "loss", "choose labels"} <= row["phases"].keys()
    scale.show([row, {**row, "labels": 1_000_500, "cpu": row["cpu"] + 2}])
    assert "2.00 CPU seconds a million labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "side", "budget"),
    [
        ("all", "all", 0.2),
        ("in-batch", "in-batch", 0.2),
        ("bank", "bank", 0.2),
        ("bank:bank_budget=0.1,lr=1e-4", "bank", 0.1),
    ],
)
def test_a_variant_changes_the_label_side_and_nothing_else(variant: str, side: str, budget: float) -> None:
    args = Namespace(config=CONFIG, cut=0, seed=3)
    cfg, base = bank.config(args, variant), bank.config(args, "bank")
    assert (cfg.resolved_label_side, cfg.bank_budget, cfg.seed) == (side, budget, 3)
    assert (cfg.bsz, cfg.tf, cfg.num_val_points, cfg.loss_criterion) == (256, base.tf, 2000, "decoupled-softmax")


def test_rows_of_the_same_variant_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = {"config": "bank", "data": "Toy", "cut": 0, "steps": 1, "seed": 0, "variant": "all", "layers": 1, "P@1": 1.0}
    assert bank.read(path) == bank.read(None) == []
    bank.write(path, [row])
    assert bank.same(bank.read(path)[0], {**row, "P@1": 2.0})
    assert not bank.same(row, {**row, "seed": 1})
    assert json.loads(path.read_text()) == [row]
