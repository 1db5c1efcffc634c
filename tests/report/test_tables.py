import json
from pathlib import Path

import pytest

from dexml.report.run import Run
from dexml.report.tables import costs, differences, duration, size
from tests.report.folders import write_run


def test_costs_come_from_the_log_where_a_run_kept_no_count(root: Path) -> None:
    rows = {row.name: row.cells[0] for row in costs([Run.read(write_run(root))])}
    assert rows["Machine"].startswith("cpu")
    assert rows["Steps"] == "60 in 3 epochs"
    assert rows["Time of a step"] == "1 s"
    assert rows["Time of an epoch"] == "20 s"
    assert rows["Tokens encoded a second"] == "900"
    assert "Peak memory" not in rows


def test_costs_that_a_run_counted_win_over_its_log(root: Path) -> None:
    folder = write_run(root, epochs=2)
    counted = [
        {"seconds": 60.0, "eval_seconds": 5.0, "tokens_per_s": 100.0, "peak_mb": 900.0, "tokens_per_step": 7000.4},
        {"seconds": 30.0, "eval_seconds": 7.0, "tokens_per_s": 400.0, "peak_mb": 1500.0, "tokens_per_step": 7100.4},
    ]
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(entry | cost) + "\n" for entry, cost in zip(entries, counted, strict=True))
    (folder / "metrics.jsonl").write_text(text)
    rows = {row.name: row.cells[0] for row in costs([Run.read(folder)])}
    assert rows["Training"] == "1 min 30 s"
    assert rows["Evaluations"] == "12 s"
    assert rows["Time of a step"] == "2.2 s"  # 90 s over 40 steps
    assert rows["Tokens encoded a second"] == "200"  # 6000 + 12000 tokens in 90 s
    assert rows["Tokens encoded a step"] == "7,100"
    assert rows["Peak memory"] == "1.50 GB"


def test_settings_that_differ_are_shown_as_they_stand(root: Path) -> None:
    runs = [
        Run.read(write_run(root, "one", lr=0.1, save=True, tau=1), "A"),
        Run.read(write_run(root, "two", lr=0.2, save=True), "B"),
    ]
    assert [(row.name, row.cells) for row in differences(runs)] == [("lr", ["0.1", "0.2"]), ("tau", ["1", ""])]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.034, "0.034 s"), (9.96, "10 s"), (42.4, "42 s"), (59.7, "1 min 00 s"),
     (500, "8 min 20 s"), (11100, "3 h 05 min")],
)  # fmt: skip
def test_durations_read_like_a_clock(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(("megabytes", "expected"), [(0.12, "0.1 MB"), (87.4, "87 MB"), (1536, "1.54 GB")])
def test_sizes_have_few_digits(megabytes: float, expected: str) -> None:
    assert size(megabytes) == expected
