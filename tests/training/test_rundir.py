"""The folder of a run: who may use it, what stands in it, and what a kill in the middle leaves."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from scipy.sparse import csr_matrix, load_npz

from dexml.config import Config, ConfigError
from dexml.evaluation.calibration import Calibration
from dexml.training.log import log_to, start_log
from dexml.training.rundir import RunFolder

COLUMNS = [
    *("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5", "MRR@10"),
    *("PSP@1", "PSP@3", "PSP@5", "R@10", "R@50", "R@100"),
]


def folder(tmp_path: Path, **keys: Any) -> RunFolder:
    settings = {"results_root": str(tmp_path), "dataset": "Toy", "num_epochs": 4, **keys}
    return RunFolder(Config(**settings))


def entry(step: int, epoch: int = 1) -> dict[str, Any]:
    return {
        "split": "val", "epoch": epoch, "step": step, "loss": 1.25, "n_docs": 3,
        **dict.fromkeys(COLUMNS, 12.345),
    }  # fmt: skip


# --- starting --------------------------------------------------------------------------------------------------------


def test_a_fresh_folder_is_made_with_its_config(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.check(1000)
    assert not list(tmp_path.iterdir()), "the check leaves no trace"
    run.open()
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "config.yaml"]


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    folder(tmp_path).open()
    folder(tmp_path, gc_bsz=3, save_interval=9).check(0)  # places and speed may change
    with pytest.raises(ConfigError, match=r"other settings \(tau: 0.05 -> 0.1, lr: 0.0001 -> 0.5\).*another expname"):
        folder(tmp_path, lr=0.5, tau=0.1).check(0)


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    assert run.finished() is None
    run.finish({"P@1": 50.0})
    assert run.finished() == {"P@1": 50.0}
    assert folder(tmp_path, resume="never").finished() is None
    with pytest.raises(ConfigError, match=r"lr: 0.0001 -> 0.5"):
        folder(tmp_path, lr=0.5).finished()


def test_never_keeps_the_old_folder_under_another_name(tmp_path: Path) -> None:
    for number in range(3):
        run = folder(tmp_path, resume="never", seed=number)
        run.check(0)
        run.open()
        (run.path / "mine").write_text(str(number))
        run.release()
    names = {path.name: (path / "mine").read_text() for path in run.path.parent.iterdir()}
    assert names == {"dexml-exp": "2", "dexml-exp.1": "0", "dexml-exp.2": "1"}


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "DEXML").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write results there .*DEXML: it is a file.*set results_root"):
        folder(tmp_path).check(0)
    with pytest.raises(ConfigError, match="cannot write results there"):
        folder(tmp_path).open()


def test_a_folder_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="no write permission"):
        folder(tmp_path).check(0)


def test_a_disk_that_is_too_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**8))
    run = folder(tmp_path)
    run.check(10**8)
    with pytest.raises(ConfigError, match=r"0.10 GB free, the run needs 0.20 GB: free some space, lower save_keep"):
        run.check(2 * 10**8)
    run.open()
    with (run.checkpoints / "big").open("wb") as file:
        file.truncate(10**8)  # what the run holds already will be reused
    run.check(2 * 10**8)


HOLDER = """
import sys
from pathlib import Path
from dexml.config import Config
from dexml.training.rundir import RunFolder
run = RunFolder(Config(results_root=sys.argv[1], dataset="Toy", num_epochs=4))
run.open()
print("in", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_folder_in_which_another_process_trains_is_refused_and_stays_as_it_is(tmp_path: Path, resume: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        run = folder(tmp_path, resume=resume)
        for start in (lambda: run.check(0), run.open):
            with pytest.raises(ConfigError, match=r"another process is training there: wait .* another expname"):
                start()
        assert (run.path / "config.yaml").exists()
        folder(tmp_path, resume=resume, expname="another").open()
        holder.kill()
    run.check(0)
    run.open()
    run.release()
    assert not list(run.path.parent.glob(f".{run.path.name}*")), "nothing is left of it"


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_the_table_has_the_published_columns(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    run.record(entry(10, epoch=2))
    run.record({**entry(20, epoch=4), "R@50": 3.456})
    lines = [line.split("\t") for line in (run.path / "metrics.tsv").read_text().splitlines()]
    assert lines[0] == ["", *COLUMNS, "loss"]
    assert lines[1] == ["val 2/4", *[f"{12.345:.2f}"] * len(COLUMNS), "1.2500E+00"]
    assert lines[2][0] == "val 4/4" and lines[2][12] == "3.46"
    assert len(lines) == 3


def test_columns_that_the_predictions_do_not_reach_are_left_out_and_deeper_recall_is_added(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    short = {name: value for name, value in entry(1).items() if name not in ("R@50", "R@100")}
    run.record(short)
    assert (run.path / "metrics.tsv").read_text().splitlines()[0].split("\t")[-3:] == ["PSP@5", "R@10", "loss"]
    other = folder(tmp_path, expname="deep")
    other.open()
    other.record({**entry(1), "R@200": 1.0})
    assert (other.path / "metrics.tsv").read_text().splitlines()[0].split("\t")[-3:] == ["R@100", "R@200", "loss"]


def test_a_line_that_was_cut_off_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    run.record(entry(1))
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"split": "val", "ste')
    assert [line["step"] for line in run.entries()] == [1]
    run.record(entry(2))
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_rewinding_forgets_what_came_later(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    for step in (5, 10, 15):
        run.record(entry(step, epoch=step))
        (run.checkpoints / f"step-{step:08d}").mkdir()
    run.finish({"P@1": 1.0})
    (run.path / ".metrics.tsv.17-abcd.tmp").write_text("half")
    run.rewind(10)
    assert [line["step"] for line in run.entries()] == [5, 10]
    assert len((run.path / "metrics.tsv").read_text().splitlines()) == 3
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000005", "step-00000010"]
    assert not run.metrics_file.exists()
    assert not list(run.path.glob(".*.tmp"))


def test_scores_are_readable_and_whole(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    run.write_scores("val", csr_matrix([[0, 1.5], [0, 0]]))
    assert load_npz(run.path / "val_score_mat.npz").toarray().tolist() == [[0, 1.5], [0, 0]]


def test_a_table_has_a_row_for_every_way_of_predicting(tmp_path: Path) -> None:
    run = RunFolder(Config(dataset="Toy"), tmp_path)
    run.write_table("tst", {"labels": {"P@1": 50.0, "n_docs": 3}})
    assert (tmp_path / "tst_metrics.tsv").read_text() == "\tP@1\ndexml-exp\t50.00\n"
    run.write_table("tst-mix", {"labels": {"P@1": 50.0}, "mix": {"P@1": 51.0, "knn_k": 5}})
    assert (tmp_path / "tst-mix_metrics.tsv").read_text() == "\tP@1\ndexml-exp labels\t50.00\ndexml-exp mix\t51.00\n"
    assert json.loads((tmp_path / "tst-mix_metrics.json").read_text())["mix"] == {"P@1": 51.0, "knn_k": 5}


def test_a_calibration_of_an_earlier_start_does_not_stay(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.open()
    run.write_calibration(Calibration(0.1, 0.5))
    assert json.loads((run.path / "calibration.json").read_text()) == Calibration(0.1, 0.5).to_dict()
    run.write_calibration(None)
    assert not (run.path / "calibration.json").exists()


def test_a_run_without_save_leaves_no_checkpoints(tmp_path: Path) -> None:
    run = folder(tmp_path, save=False)
    run.open()
    run.finish({"P@1": 1.0})
    assert not run.checkpoints.exists()
    assert run.finished() == {"P@1": 1.0}


# --- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_file_holds_the_lines_from_before_it_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("dexml.test")
    start_log(True)
    log.info("first")
    log_to(tmp_path / "log.txt")
    log.warning("second")
    log.debug("a step")
    start_log(True)
    log.info("of another run")
    lines = [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines == ["INFO first", "WARNING second", "DEBUG a step"]
    assert capsys.readouterr().err.splitlines() == ["first", "warning: second", "of another run"]


def test_ranks_that_do_not_speak_show_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("dexml.test")
    start_log(False)
    log.warning("quiet")
    log.error("loud")
    assert capsys.readouterr().err.splitlines() == ["error: loud"]
