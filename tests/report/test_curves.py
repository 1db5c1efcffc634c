from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from dexml.report.curves import DENSE, _losses, pace_plots, training_plots
from dexml.report.run import Run, Step
from tests.report.folders import write_run


def names(runs: list[Run]) -> list[str]:
    return [plot.name for plot in [*training_plots(runs), *pace_plots(runs)]]


def test_loss_metrics_and_speed_have_a_curve_each(root: Path) -> None:
    run = Run.read(write_run(root, track_metric="nDCG@5"))
    assert names([run]) == ["loss", "curve-nDCG-5", "curve-P-1", "pace"]


def test_a_metric_measured_once_has_no_curve(root: Path) -> None:
    assert names([Run.read(write_run(root, epochs=1))]) == ["loss", "pace"]


def test_without_a_log_the_loss_is_that_of_the_evaluations(root: Path) -> None:
    folder = write_run(root)
    (folder / "log.txt").unlink()
    run = Run.read(folder)
    assert names([run]) == ["loss", "curve-P-1"]
    assert list(_losses(run).y) == [1, 0.5, pytest.approx(1 / 3)]


def test_steps_stand_at_their_epochs(root: Path) -> None:
    line = _losses(Run.read(write_run(root)))  # 20 steps an epoch
    assert line.x == [0.5, 1, 1.5, 2, 2.5, 3]
    assert line.y == [0.9, 0.45, 0.3, 0.225, 0.18, 0.15]


def test_a_long_run_is_averaged_to_what_a_figure_can_show(root: Path) -> None:
    run = Run.read(write_run(root))
    steps = [Step(datetime(2026, 1, 1), n, 60, float(n), None) for n in range(1, 10 * DENSE + 1)]
    line = _losses(replace(run, steps=steps))
    assert len(line.x) == DENSE
    assert np.allclose(line.y, np.arange(1, 10 * DENSE + 1).reshape(DENSE, 10).mean(1))
