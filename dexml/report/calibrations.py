"""How far scores can be read as probabilities, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dexml.evaluation.calibration import Calibration, CalibrationError, Reliability, reliability
from dexml.report.evidence import Evidence, Ranked
from dexml.report.figures import Plot, Series, curve
from dexml.report.run import Run

FEWEST = 20  # predictions that a drawn bin rests on


@dataclass(frozen=True)
class Read:
    """A run's predictions with their probabilities: all of them, and those on the first place alone."""

    letter: str
    every: Reliability
    first: Reliability
    on_half: bool
    """Fitted on half of the test points, so judged on the other half."""


def calibration_plots(runs: Sequence[Run], evidence: Evidence, notes: list[str]) -> list[Plot]:
    """The reliability curves of the runs whose scores can be calibrated: of first predictions, and of all."""
    reads = []
    for run in runs:
        if run.letter not in evidence.ranked:
            continue
        try:
            reads.append(_read(run, evidence.ranked[run.letter]))
        except CalibrationError as error:
            notes.append(f"Run {run.letter} has no calibration: {error}.")
    if not reads:
        return []
    return [
        _plot("calibration-first", "First predictions", [(read.letter, read.first) for read in reads], reads),
        _plot("calibration", "All stored predictions", [(read.letter, read.every) for read in reads], reads),
    ]


def _read(run: Run, lists: Ranked) -> Read:
    """CalibrationError if the scores give no probabilities."""
    fitted, rows = _calibration(run, lists)
    p_NK, hits_NK, real_NK = fitted.probability(lists.scores[rows]), lists.hits[rows], lists.ids[rows] >= 0
    every = reliability(p_NK[real_NK], hits_NK[real_NK])
    return Read(run.letter, every, reliability(p_NK[:, 0], hits_NK[:, 0]), on_half=rows.step is not None)


def _plot(name: str, title: str, curves: Sequence[tuple[str, Reliability]], reads: Sequence[Read]) -> Plot:
    lines = []
    for letter, found in curves:
        enough = found.count >= FEWEST
        lines.append(Series(letter, 100 * found.confidence[enough], 100 * found.accuracy[enough]))
    errors = [f"{letter} {100 * found.error:.1f} %" for letter, found in curves]
    told = ", ".join(errors) if len(curves) > 1 else errors[0][2:]
    half = [read.letter for read in reads if read.on_half]
    caption = f"Expected calibration error: {told}."
    if half:
        whose = f" of {', '.join(half)}" if len(curves) > 1 else ""
        caption += f" Without validation points, the fit{whose} is on half of the test points and shown on the others."
    return curve(
        name, title, caption, lines, bound=Series("", (0, 35, 100), (0, 35, 100)), bound_name="perfect",
        x_label="probability given, %", y_label="% of the predictions that are true", from_zero=True, percent=True,
    )  # fmt: skip


def _calibration(run: Run, lists: Ranked) -> tuple[Calibration, slice]:
    """That of the run, to be judged on all test points; else one fitted on every second point, for the others."""
    if run.calibration is not None and run.metrics.get("predict_mode", "labels") == "labels":
        return Calibration.from_dict(run.calibration), slice(None)
    half = slice(0, None, 2)
    return Calibration.fit(np.where(lists.ids >= 0, lists.scores, -np.inf)[half], lists.hits[half]), slice(1, None, 2)
