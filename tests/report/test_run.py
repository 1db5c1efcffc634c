import json
from datetime import datetime
from pathlib import Path

import pytest

from dexml.report.run import ReportError, Run, read_runs
from tests.report.folders import write_data, write_run


def test_a_run_is_what_its_files_say(root: Path) -> None:
    run = Run.read(write_run(root, "one", epochs=3), "B")
    assert (run.letter, run.name, run.dataset, run.split) == ("B", "one", "Made", "tst")
    assert [entry["epoch"] for entry in run.evaluations] == [1, 2, 3]
    assert [step.number for step in run.steps] == [10, 20, 30, 40, 50, 60]
    assert (run.steps[0].loss, run.steps[0].tokens_per_second, run.steps[0].total) == (0.9, 900, 60)
    assert run.ended == datetime(2026, 1, 2, 3, 5, 0)
    assert run.data_dir == root / "Datasets" / "Made"


def test_a_step_that_a_resumed_run_repeats_counts_once(root: Path) -> None:
    folder = write_run(root, epochs=1)
    with (folder / "log.txt").open("a") as log:
        log.write("2026-01-02 04:00:00 DEBUG step 10/20, loss 0.1234, lr 0.1\n")
    steps = Run.read(folder).steps
    assert [(step.number, step.loss, step.tokens_per_second) for step in steps] == [(10, 0.1234, None), (20, 0.45, 900)]


def test_a_run_that_is_not_done_has_the_metrics_of_its_last_evaluation(root: Path) -> None:
    folder = write_run(root)
    (folder / "metrics.json").unlink()
    run = Run.read(folder)
    assert run.split == "val"
    assert run.metrics == run.evaluations[-1]


def test_a_line_that_was_cut_off_is_left_out(root: Path) -> None:
    folder = write_run(root)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"split": "val", "ep')
    assert len(Run.read(folder).evaluations) == 3


@pytest.mark.parametrize("names", [["metrics.json", "metrics.jsonl"], ["metrics.json", "metrics.jsonl", "log.txt"]])
def test_a_folder_without_metrics_is_one_error(root: Path, names: list[str]) -> None:
    folder = write_run(root)
    for name in names:
        (folder / name).unlink()
    with pytest.raises(ReportError, match=r"neither metrics.json nor an evaluation in metrics.jsonl"):
        Run.read(folder)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("metrics.json", "{", r"metrics.json:1: not JSON"),
        ("metrics.json", "[1]", r"metrics.json:1: expected a JSON object"),
        ("metrics.json", '{"P@1": "x"}', r"metrics.json:1: P@1 is 'x', not a number"),
        ("metrics.jsonl", '{"epoch": 1, "step": 9}\nno\n', r"metrics.jsonl:2: not JSON"),
        ("metrics.jsonl", "{}\n", r"metrics.jsonl:1: an evaluation has an epoch and a step"),
        ("config.yaml", "a: [", r"config.yaml: not YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(root: Path, name: str, text: str, told: str) -> None:
    folder = write_run(root)
    (folder / name).write_text(text)
    with pytest.raises(ReportError, match=told):
        Run.read(folder)


def test_no_folder_is_told_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such folder; give a run"):
        Run.read(tmp_path / "nowhere")


def test_only_different_runs_on_one_data_set_are_compared(root: Path) -> None:
    one = write_run(root, "one")
    other = write_run(root, "other", dataset="Other")
    with pytest.raises(ReportError, match="given twice"):
        read_runs([one, one / ".." / "one"])
    with pytest.raises(ReportError, match=r"a run on Other, .* on Made"):
        read_runs([one, other])
    with pytest.raises(ReportError, match="7 runs given"):
        read_runs([one] * 7)


def test_metrics_of_any_version_are_read(tmp_path: Path) -> None:
    write_data(tmp_path)
    folder = write_run(tmp_path)
    (folder / "metrics.json").write_text(json.dumps({"P@1": 12.5, "unheard of": "x"}))
    assert Run.read(folder).metrics["P@1"] == 12.5
