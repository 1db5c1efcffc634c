"""The bench of label-wise attention runs: flat beside the levels of a tree, and beside a label-wise plt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.attentionxml import of_config, ratios, synthetic, turns
from tests.heads.attention_step import PLT, TREE
from tests.helpers.models import toy_config


@pytest.mark.parametrize(
    ("keys", "sides"), [(TREE, ["flat", "level 0", "level 1"]), ({**PLT, "expname": "plt"}, ["flat", "tree"])]
)
def test_steps_on_data_take_turns(tmp_path: Path, keys: dict[str, Any], sides: list[str]) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(toy_config(tmp_path, **keys)))
    found = ratios(turns(of_config(tmp_path / "run.yaml", ["--num_threads", "1"]), 2))
    assert list(found) == [*sides, "first / others"] and all(value > 0 for value in found.values())


def test_synthetic_steps_take_turns() -> None:
    assert ratios(turns(synthetic(64, 8), 1))["first / others"] > 0
