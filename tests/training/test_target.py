"""What `dexml eval` accepts: a run, a bundle or config files, and only as the model was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dexml.config import Config, ConfigError
from dexml.training.target import Target
from tests.helpers.datasets import write_lines


def trained(root: Path, **keys: Any) -> Config:
    """The traces of a run that has ended."""
    cfg = Config(**{"results_root": str(root / "Results"), "dataset": "Toy", "num_val_points": 4, **keys})
    cfg.dump(cfg.out_dir / "config.yaml")
    best = cfg.out_dir / "best"
    cfg.dump(best / "dexml.yaml")
    for name in ("model.safetensors", "modules.json"):
        (best / name).write_bytes(b"")
    return cfg


def test_a_run_is_its_folder_or_its_config(tmp_path: Path) -> None:
    cfg = trained(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"results_root": cfg.results_root, "dataset": "Toy", "num_val_points": 4}))
    for words in ([str(cfg.out_dir)], [str(cfg.out_dir / "config.yaml")], [str(file)]):
        target = Target.of(words, ["--eval_topk", "7"])
        assert (target.run, target.bundle, target.cfg.eval_topk) == (cfg.out_dir, cfg.out_dir / "best", 7)
        assert target.trained.eval_topk == 100


def test_a_run_that_was_moved_is_evaluated_where_it_is(tmp_path: Path) -> None:
    moved = trained(tmp_path).out_dir.rename(tmp_path / "moved")
    assert Target.of([str(moved)]).run == moved


def test_a_bundle_brings_its_encoder_and_tokenizer(tmp_path: Path) -> None:
    best = trained(tmp_path).out_dir / "best"
    target = Target.of([str(best)])
    assert (target.run, target.cfg.tf, target.cfg.tokenizer_name) == (None, str(best), str(best))
    assert target.cfg.data_tokenization == "online", "no token files named by a folder that may be gone tomorrow"


def test_only_a_model_of_the_same_reading_is_evaluated(tmp_path: Path) -> None:
    cfg = trained(tmp_path)
    Target.of([str(cfg.out_dir)], ["--lr", "0.5", "--precision", "fp32"])
    for place in (cfg.out_dir, cfg.out_dir / "best"):
        with pytest.raises(ConfigError, match=r"\(tf_max_len: 32 -> 64\): leave them as they were"):
            Target.of([str(place)], ["--tf_max_len", "64"])
    (cfg.out_dir / "best" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no exported model: has the run of this config ended"):
        Target.of([str(cfg.out_dir)])
    with pytest.raises(ConfigError, match="neither a run's folder"):
        Target.of([str(tmp_path)])


def test_another_data_folder_needs_only_the_split_that_is_asked_for(tmp_path: Path) -> None:
    target = Target.of([str(trained(tmp_path).out_dir)])
    write_lines(tmp_path / "Other" / "raw" / "tst_X.txt", ["a text"])
    other = target.on(tmp_path / "Other", "tst")
    assert (other.cfg.data_dir, other.splits, other.run) == (tmp_path / "Other", ("tst",), None)
    assert other.cfg.num_val_points == 0 and other.bundle == target.bundle
    assert target.on(tmp_path / "Other", "trn").splits == ("trn", "tst")
    assert target.on(tmp_path / "Other", "dev").splits == ("tst",)
    with pytest.raises(ConfigError, match="val holds out points of the run's own training data"):
        target.on(tmp_path / "Other", "val")
