import json
from pathlib import Path

import pytest

from dexml.report.evidence import gather
from dexml.report.results import Cell, Gap, Line, metric_lines, verdict
from dexml.report.run import Run
from tests.report.folders import write_run


@pytest.fixture
def runs(root: Path) -> list[Run]:
    noises = (("A", "blurred", 2.0), ("B", "sharp", 0.5), ("C", "blurred too", 1.99))
    return [Run.read(write_run(root, name, noise), letter) for letter, name, noise in noises]


def test_every_metric_has_values_intervals_bounds_and_gaps_to_the_first_run(runs: list[Run]) -> None:
    lines = {line.metric: line for line in metric_lines(runs, gather(runs, []), [])}
    assert list(lines) == ["P@1", "P@3", "P@5", "nDCG@3", "nDCG@5", "MRR@10", "PSP@1", "PSP@3", "PSP@5", "R@10"]
    line = lines["P@5"]
    assert [cell.value for cell in line.cells] == [run.metrics["P@5"] for run in runs]
    for cell in line.cells:
        assert cell.low is not None and cell.high is not None and cell.low < cell.value < cell.high
    better, same = line.gaps
    assert better is not None and same is not None
    assert better.value == pytest.approx(runs[1].metrics["P@5"] - runs[0].metrics["P@5"])
    assert better.significant and not same.significant
    assert line.bound is not None and line.bound >= max(cell.value for cell in line.cells)
    assert lines["nDCG@5"].bound is None


def test_groups_of_metrics_open_with_a_line(runs: list[Run]) -> None:
    lines = metric_lines(runs[:1], None, [])
    assert [line.metric for line in lines if line.opens] == ["nDCG@3", "MRR@10", "PSP@1", "R@10"]


def test_scores_that_do_not_give_the_written_metrics_are_not_trusted(runs: list[Run]) -> None:
    path = runs[0].path / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "P@1": 99.0}))
    changed = [Run.read(runs[0].path, "A"), runs[1]]
    lines = metric_lines(changed, gather(changed, []), notes := [])
    assert len(notes) == 1 and "metrics.json says 99.00" in notes[0]
    assert lines[0].cells[0].low is None and lines[0].cells[1].low is not None
    assert lines[0].gaps == [None]


def line(runs: list[Run], values: list[float], gaps: list[Gap | None]) -> list[Line]:
    cells = [Cell(run, value, value - 1, value + 1) for run, value in zip(runs, values, strict=False)]
    return [Line("P@1", cells, gaps, None, False)]


def test_the_verdict_names_leader_lead_and_interval(runs: list[Run]) -> None:
    ahead = verdict(line(runs[:2], [50.0, 53.0], [Gap(3.0, 1.0, 5.0, True)]), 40)
    assert ahead == "B (sharp) leads at P@1 with 53.0 %, 3.0 points ahead of A (blurred); 95 % interval +1.0 to +5.0."


def test_the_verdict_turns_the_gap_when_the_first_run_leads(runs: list[Run]) -> None:
    lines = line(runs, [55.0, 53.0, 54.0], [Gap(-2.0, -4.0, 0.5, False), Gap(-1.0, -3.0, -0.02, True)])
    assert verdict(lines, 40) == (
        "A (blurred) leads at P@1 with 55.0 %, 1.0 points ahead of C (blurred too); 95 % interval +0.0 to +3.0."
    )


def test_the_verdict_on_a_tie_is_that_there_is_no_winner(runs: list[Run]) -> None:
    said = verdict(line(runs[:2], [50.0, 50.5], [Gap(0.5, -1.0, 2.0, False)]), 40)
    assert said.startswith("No clear winner at P@1") and "−1.0 to +2.0" in said


def test_the_verdict_on_one_run_is_what_a_user_gets(runs: list[Run]) -> None:
    said = verdict(line(runs[:1], [50.0], []), 40)
    assert said == "For 50.0 % (± 1.0) of 40 test texts the first prediction is a true label."


def test_runs_measured_on_different_points_are_not_ranked(runs: list[Run]) -> None:
    (runs[1].path / "metrics.json").unlink()
    mixed = [runs[0], Run.read(runs[1].path, "B")]
    assert "cannot be compared" in verdict(metric_lines(mixed, None, []), 40)
