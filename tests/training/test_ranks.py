"""Checkpoints of several processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from dexml.training.checkpoint import CheckpointError, checkpoints
from dexml.training.trainer import Trainer
from tests.helpers.models import toy_config
from tests.helpers.processes import run_ranks
from tests.training.runs import assert_same_result, config


@pytest.mark.parametrize("net", ["dist-de-all", "dist-clf-net"])
def test_two_processes_go_on_bit_for_bit_and_one_is_refused(root: Path, net: str) -> None:
    keys = {
        "expname": f"two-{net}",
        "net": net,
        "num_epochs": 2,
        "eval_interval": 1,
        "save_interval": 2,
        "save_keep": 9,
    }
    keys["num_threads"] = 1
    file = root / f"two-{net}.yaml"
    file.write_text(yaml.safe_dump(toy_config(root, **keys)))
    run_ranks(2, "train", str(file))
    cfg = config(root, **keys)
    kept = checkpoints(cfg.out_dir / "checkpoints")
    assert {name.split(".")[0] for name in load_file(kept[0] / "rng.safetensors")} == {"0", "1"}
    shards = {path.name for path in kept[0].glob("shard-*")}
    assert shards == ({"shard-0.safetensors", "shard-1.safetensors"} if net == "dist-clf-net" else set())
    whole = cfg.out_dir.with_name(f"{cfg.expname}-whole")
    shutil.copytree(cfg.out_dir, whole)
    for path in kept[1:]:
        shutil.rmtree(path)
    (cfg.out_dir / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match="was written by 2 processes, now there are 1: start as many"):
        Trainer(cfg).fit()
    run_ranks(2, "train", str(file))
    assert f"(step {int(kept[0].name[5:])} of" in (cfg.out_dir / "log.txt").read_text()
    assert_same_result(cfg.out_dir, whole)
