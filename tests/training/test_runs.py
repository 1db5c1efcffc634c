"""Whole runs in this process: what they leave, which model they choose, and how they go on."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import csr_matrix, load_npz, save_npz

from dexml.config import Config, ConfigError
from dexml.data.tokenizer import load_tokenizer
from dexml.evaluation.calibration import Calibration
from dexml.training.checkpoint import CheckpointError, checkpoints
from dexml.training.evaluate import Evaluation, evaluate
from dexml.training.target import Target
from dexml.training.trainer import Trainer
from tests.helpers.datasets import write_dat
from tests.training.runs import assert_same_result, config, killed_at, train

SHORT = {"num_epochs": 2, "eval_interval": 1, "bsz": 64}  # 6 steps


def lines(cfg: Config) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (cfg.out_dir / "metrics.jsonl").read_text().splitlines()]


def only_metrics(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if "@" in name}


def evaluated(cfg: Config, split: str) -> dict[str, Any]:
    """What `dexml eval` finds."""
    rows = evaluate(Evaluation(Target.of([str(cfg.out_dir)]), split))
    assert rows is not None
    return rows["labels"]


@pytest.fixture(scope="module")
def whole(root: Path) -> Config:
    """An undisturbed run with checkpoints at every step."""
    cfg, _ = train(root, expname="whole", save_interval=1, save_keep=9, **SHORT)
    return cfg


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_a_named_checkpoint_and_forgets_later_ones(
    root: Path, whole: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"expname": "named", "save_interval": 1, "save_keep": 9, **SHORT}
    cfg, _ = train(root, **keys)
    first = cfg.out_dir / "checkpoints" / "step-00000002"
    again = config(root, **keys, resume=str(first))
    killed_at(again, 4, monkeypatch)
    assert [path.name for path in checkpoints(cfg.out_dir / "checkpoints")] == [
        "step-00000001",
        first.name,
        "step-00000003",
    ]
    assert not (cfg.out_dir / "metrics.json").exists(), "the run is not complete any more"
    train(root, **keys)
    assert_same_result(cfg.out_dir, whole.out_dir)


def test_a_damaged_checkpoint_costs_steps_but_not_the_run(
    root: Path, whole: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"expname": "damaged", "save_interval": 1, "save_keep": 9, **SHORT}
    cfg = config(root, **keys)
    killed_at(cfg, 5, monkeypatch)
    newest = cfg.out_dir / "checkpoints" / "step-00000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8])
    train(root, **keys)
    log = (cfg.out_dir / "log.txt").read_text()
    assert "step-00000004" in log and "trying the one before" in log and "(step 3 of 6)" in log
    assert_same_result(cfg.out_dir, whole.out_dir)


def test_a_finished_run_gives_its_metrics_without_training(
    root: Path, whole: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_build", lambda self: pytest.fail("a finished run was started again"))
    assert Trainer(whole).fit() == json.loads((whole.out_dir / "metrics.json").read_text())


def test_other_settings_data_or_checkpoints_are_refused_before_training(
    root: Path, whole: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_train", lambda self: pytest.fail("training was started"))
    keys = {"expname": "whole", "save_interval": 1, "save_keep": 9, **SHORT}
    first = str(whole.out_dir / "checkpoints" / "step-00000001")
    with pytest.raises(ConfigError, match=r"other settings \(lr: 0.003 -> 0.1\)"):
        train(root, **{**keys, "lr": 0.1})
    with pytest.raises(CheckpointError, match=r"other settings \(tau: 0.05 -> 0.5\)"):
        train(root, **{**keys, "expname": "elsewhere", "tau": 0.5, "resume": first})
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        train(root, **{**keys, "expname": "elsewhere", "resume": str(tmp_path / "step-00000009")})
    with pytest.raises(CheckpointError, match="name a step-"):
        train(root, **{**keys, "expname": "elsewhere", "resume": str(whole.out_dir / "best")})
    shutil.copytree(root / "Datasets" / "Toy", tmp_path / "Toy")
    truth = csr_matrix(load_npz(tmp_path / "Toy" / "Y.trn.npz"))
    truth.data[0] = 2
    save_npz(tmp_path / "Toy" / "Y.trn.npz", truth)
    with pytest.raises(CheckpointError, match=r"data have changed since \(Y.trn.npz\)"):
        train(root, **{**keys, "expname": "elsewhere", "data_root": str(tmp_path), "resume": first})
    assert not config(root, expname="elsewhere").out_dir.exists()


def test_a_run_whose_best_model_is_lost_does_not_go_on_silently(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"expname": "lost", "save_interval": 1, "save_keep": 1, **SHORT}
    cfg = config(root, **keys)
    killed_at(cfg, 5, monkeypatch)
    assert [path.name for path in checkpoints(cfg.out_dir / "checkpoints")] == ["step-00000003", "step-00000004"]
    shutil.rmtree(cfg.out_dir / "checkpoints" / "step-00000003")
    with pytest.raises(CheckpointError, match="step-00000003: no such checkpoint folder"):
        train(root, **keys)


def test_never_starts_over_beside_the_old_folder(root: Path, whole: Config) -> None:
    shutil.copytree(whole.out_dir, whole.out_dir.with_name("again"))
    train(root, expname="again", resume="never", save_interval=1, save_keep=9, **SHORT)
    old, new = whole.out_dir.with_name("again.1"), whole.out_dir.with_name("again")
    assert_same_result(old, new)
    assert "resuming" not in (new / "log.txt").read_text()


# --- which model -----------------------------------------------------------------------------------------------------


def check_choice(root: Path, monkeypatch: pytest.MonkeyPatch, expname: str, **keys: Any) -> Config:
    """A run whose tracked metric is best at the first evaluation: that model must be the result."""
    scores = iter([90.0, 10.0])
    from dexml.session import Session

    real = Session.evaluate

    def evaluate(self: Session, *names: str) -> Any:
        found = real(self, *names)
        for metrics, _ in found.values():
            metrics["nDCG@5"] = next(scores, metrics["nDCG@5"])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Session, "evaluate", evaluate)
        cfg, metrics = train(root, expname=expname, save_keep=1, **SHORT, **keys)
    assert (metrics["chosen_step"], metrics["steps"]) == (lines(cfg)[0]["step"], lines(cfg)[1]["step"])
    first, last = checkpoints(cfg.out_dir / "checkpoints")
    best = load_file(cfg.out_dir / "best" / "model.safetensors")
    chosen, rejected = load_file(first / "model.safetensors"), load_file(last / "model.safetensors")
    name = next(name for name in best if name.endswith("query.weight"))
    assert torch.equal(best[name], chosen[f"tf.{name}"])
    assert not torch.equal(best[name], rejected[f"tf.{name}"])
    return cfg


def test_the_best_model_on_the_validation_points_is_the_result(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = check_choice(root, monkeypatch, "best-val")
    tested = json.loads((cfg.out_dir / "metrics.json").read_text())
    assert tested["chosen_on"] == "val"
    assert only_metrics(evaluated(cfg, "tst")) == only_metrics(tested)
    first = {**only_metrics(lines(cfg)[0]), "nDCG@5": None}
    assert {**only_metrics(evaluated(cfg, "val")), "nDCG@5": None} == first


def test_choosing_on_the_test_set_needs_to_be_asked_for_and_is_written_down(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = check_choice(root, monkeypatch, "best-tst", num_val_points=0, select_on_test=True)
    assert json.loads((cfg.out_dir / "metrics.json").read_text())["chosen_on"] == "tst"
    assert "its figures flatter it" in (cfg.out_dir / "log.txt").read_text()


def test_without_validation_points_the_last_model_is_the_result(root: Path) -> None:
    cfg, metrics = train(root, expname="last", num_val_points=0, **SHORT)
    assert "chosen_on" not in metrics
    entries = lines(cfg)
    assert [(entry["split"], entry["epoch"]) for entry in entries] == [("tst", 1), ("tst", 2)]
    assert only_metrics(entries[-1]) == only_metrics(metrics)
    last = load_file(checkpoints(cfg.out_dir / "checkpoints")[-1] / "model.safetensors")
    best = load_file(cfg.out_dir / "best" / "model.safetensors")
    assert all(torch.equal(value, last[f"tf.{name}"]) for name, value in best.items())
    assert load_npz(cfg.out_dir / "tst_score_mat.npz").shape == (50, 30)


def test_save_false_leaves_metrics_only(root: Path) -> None:
    cfg, metrics = train(root, expname="unsaved", save=False, save_interval=1, **SHORT)
    names = sorted(path.name for path in cfg.out_dir.iterdir())
    assert names == ["config.yaml", "log.txt", "metrics.json", "metrics.jsonl", "metrics.tsv"]
    assert json.loads((cfg.out_dir / "metrics.json").read_text()) == metrics


# --- when it ends ----------------------------------------------------------------------------------------------------

PATIENT = {"num_epochs": 9, "eval_interval": 1, "bsz": 64, "early_stop": 2, "save_interval": 1, "save_keep": 9}


def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every evaluation on the validation points is worse than the one before, whenever the run was started."""
    from dexml.session import Session

    real, calls = Session.evaluate, iter(range(99))

    def evaluate(self: Session, *names: str) -> Any:
        found = real(self, *names)
        if names == ("val",):
            found["val"][0]["nDCG@5"] = 90.0 - next(calls)
        return found

    monkeypatch.setattr(Session, "evaluate", evaluate)


def test_training_stops_when_nothing_gets_better_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    falling(monkeypatch)
    cfg, metrics = train(root, expname="stopped", **PATIENT)
    assert [entry["epoch"] for entry in lines(cfg)] == [1, 2, 3]
    assert (metrics["epochs"], metrics["steps"], metrics["chosen_step"]) == (3, 9, 3)
    assert metrics["stopped_early"] is True
    told = "no better nDCG@5 in 2 evaluations: training stops after epoch 3 of 9"
    assert told in (cfg.out_dir / "log.txt").read_text()


def test_a_resumed_run_stops_where_the_whole_one_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    falling(monkeypatch)
    whole, _ = train(root, expname="patient", **PATIENT)
    falling(monkeypatch)
    cfg = config(root, expname="patient-killed", **PATIENT)
    killed_at(cfg, 8, monkeypatch)  # two evaluations are done, the second no better
    Trainer(cfg).fit()
    assert_same_result(cfg.out_dir, whole.out_dir)
    assert "resuming" in (cfg.out_dir / "log.txt").read_text()
    state = json.loads((checkpoints(cfg.out_dir / "checkpoints")[-1] / "state.json").read_text())
    assert (state["stopped"], state["stale"], state["step"]) == (True, 2, 9)


def test_a_run_of_a_version_without_the_new_keys_goes_on(
    root: Path, whole: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"expname": "older", "save_interval": 1, "save_keep": 9, **SHORT}
    cfg = config(root, **keys)
    killed_at(cfg, 4, monkeypatch)
    new = ("early_stop", "predict_mode", "knn_k", "knn_weight", "knn_tau")
    file = cfg.out_dir / "config.yaml"
    file.write_text("".join(line for line in file.open() if not line.startswith(new)))
    path = checkpoints(cfg.out_dir / "checkpoints")[-1]
    state = json.loads((path / "state.json").read_text())
    for key in new:
        del state["identity"]["config"][key]
    for key in ("stale", "stopped", "cost"):
        del state[key]
    (path / "state.json").write_text(json.dumps(state))
    monkeypatch.setattr("dexml.training.resume.verify", lambda path: None)
    with pytest.raises(CheckpointError, match=r"other settings \(early_stop: 0 -> 3\)"):
        train(root, **{**keys, "expname": "newer", "early_stop": 3, "resume": str(path)})
    train(root, **{**keys, "resume": str(path)})
    assert only_metrics(lines(cfg)[-1]) == only_metrics(lines(whole)[-1])


# --- the rest --------------------------------------------------------------------------------------------------------


def test_the_log_names_rate_data_and_every_step_asked_for(whole: Config) -> None:
    log = (whole.out_dir / "log.txt").read_text()
    assert "effective learning rate 0.003 (lr 0.003, lr_scaling none)" in log
    assert "200 training points, 50 test points, 30 labels" in log


def test_every_evaluation_says_what_it_took_to_get_there(whole: Config) -> None:
    for entry in lines(whole):
        assert entry["labels_per_step"] == 30
        assert entry["seconds"] > 0 and entry["eval_seconds"] > 0 and entry["peak_mb"] > 100
        assert entry["tokens_per_s"] == pytest.approx(3 * entry["tokens_per_step"] / entry["seconds"], rel=0.01)


def test_scores_of_a_run_with_validation_points_have_probabilities(root: Path, whole: Config) -> None:
    calibration = json.loads((whole.out_dir / "calibration.json").read_text())
    assert calibration == json.loads((whole.out_dir / "best" / "calibration.json").read_text())
    assert Calibration.from_dict(calibration).temperature > 0


def test_the_test_is_predicted_as_the_config_says(root: Path, whole: Config) -> None:
    cfg, metrics = train(root, expname="mixed", predict_mode="mix", **SHORT)
    assert metrics["predict_mode"] == "mix" and 0 < metrics["knn_weight"] < 1 and metrics["knn_k"] in (5, 10, 20, 50)
    assert "chosen on 40 validation points (nDCG@5" in (cfg.out_dir / "log.txt").read_text()
    assert [only_metrics(entry) for entry in lines(cfg)] == [only_metrics(entry) for entry in lines(whole)]
    rows = evaluate(Evaluation(Target.of([str(cfg.out_dir)]), "tst"))
    assert rows is not None and list(rows) == ["labels", "knn", "mix"]
    assert only_metrics(rows["mix"]) == only_metrics(metrics)
    assert only_metrics(rows["labels"]) == only_metrics(json.loads((whole.out_dir / "metrics.json").read_text()))


def test_tensorboard_writes_an_event_file_into_the_run_folder(root: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg, metrics = train(root, expname="tracked", tracker="tensorboard", log_interval=2, **SHORT)
    files = [path for path in cfg.out_dir.rglob("events.out.tfevents.*") if path.parent.name == cfg.project]
    assert len(files) == 1
    events = EventAccumulator(str(files[0]))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert [event.step for event in events.Scalars("val/P@1")] == [3, 6]
    assert events.Scalars("test/P@1")[0].value == pytest.approx(metrics["P@1"])
    assert "step 4/6, loss" in (cfg.out_dir / "log.txt").read_text()


@pytest.mark.parametrize(
    ("tracker", "message"),
    [("tensorbord", "there is no 'tensorbord'; choose from"), ("tensorboard, wandb", "'wandb' is not installed: pip")],
)
def test_a_tracker_that_is_not_there_is_told_before_anything_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, message: str
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ConfigError, match=message):
        Trainer(config(root, expname="untracked", tracker=tracker))
    assert not config(root, expname="untracked").out_dir.exists()


def test_online_tokens_give_the_same_weights_as_token_files(root: Path, whole: Config) -> None:
    cfg, _ = train(root, expname="online", data_tokenization="online", save_interval=1, save_keep=9, **SHORT)
    assert_same_result(cfg.out_dir, whole.out_dir)


def test_token_files_of_dexml_are_used_when_there(root: Path, whole: Config, tmp_path: Path) -> None:
    data = tmp_path / "Toy"
    shutil.copytree(root / "Datasets" / "Toy", data, ignore=shutil.ignore_patterns("*.tokens"))
    cfg = config(root, expname="dat", data_root=str(tmp_path), save_interval=1, save_keep=9, **SHORT)
    tokenizer = load_tokenizer(cfg.tokenizer_name)
    name = cfg.tokenizer_name.replace("/", "_")
    for stem in ("trn_X", "tst_X", "Y"):
        texts = (data / "raw" / f"{stem}.txt").read_text().splitlines()
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=16)["input_ids"]
        write_dat(data / "raw" / f"{stem}.{name}_16.dat", np.array(ids, np.int64))
    Trainer(cfg).fit()
    assert not list((data / "raw").glob("*.tokens"))
    assert_same_result(cfg.out_dir, whole.out_dir)


def test_the_progress_bar_gives_the_terminal_back_when_training_fails(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dexml.training import progress

    monkeypatch.setattr(progress._screen().console, "_force_terminal", True)
    killed_at(config(root, expname="failed", **SHORT), 2, monkeypatch)
    assert not progress._screen().tasks
    assert not progress._screen().live.is_started


def test_logging_is_left_to_the_last_run_only(root: Path, whole: Config) -> None:
    Trainer(whole)
    handlers = logging.getLogger("dexml").handlers
    assert not [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def test_a_profile_tells_where_the_seconds_went_and_changes_nothing(root: Path, whole: Config) -> None:
    cfg, metrics = train(root, expname="profiled", profile=True, log_interval=2, **SHORT)
    told = [line for line in (cfg.out_dir / "log.txt").read_text().splitlines() if "profile at step" in line]
    assert len(told) == 3
    assert all(" s a step: " in line for line in told)
    for phase in ("encode labels", "backward queries", "optimiser"):
        assert any(phase in line for line in told)  # a share below half a per cent is left out of a line
    expected = json.loads((whole.out_dir / "metrics.json").read_text())
    assert only_metrics(metrics) == only_metrics(expected)
