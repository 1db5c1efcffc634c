"""Training curves of runs: the loss, metrics at every evaluation, the pace."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dexml.report.figures import Plot, Series, curve
from dexml.report.run import Run

METRICS = ("P@1", "R@100")  # drawn beside each run's track_metric
MOST = 2  # metrics drawn
DENSE = 150  # points of a line at most
LOGGED = "Single steps as logged, averaged where they lie close."


def training_plots(runs: Sequence[Run]) -> list[Plot]:
    """The loss, and each metric that some run has measured twice."""
    return [*_loss(runs), *(plot for metric in _metrics(runs)[:MOST] for plot in _metric(runs, metric))]


def _metrics(runs: Sequence[Run]) -> list[str]:
    tracked = [str(run.config["track_metric"]) for run in runs if run.config.get("track_metric")]
    return list(dict.fromkeys([*tracked, *METRICS]))


def _loss(runs: Sequence[Run]) -> list[Plot]:
    lines = [line for run in runs if len((line := _losses(run)).x) > 1]
    if not lines:
        return []
    caption = LOGGED if any(run.steps for run in runs) else "Mean loss since the evaluation before."
    if len({str(run.config.get("loss_criterion")) for run in runs}) > 1:
        caption += " The runs have different losses: compare shapes, not heights."
    return [curve("loss", "Training loss", caption, lines, x_label="epochs", y_label="loss")]


def _losses(run: Run) -> Series:
    """The logged steps, without any the means between evaluations."""
    if run.steps:
        return _over_epochs(run, {step.number: step.loss for step in run.steps})
    known = [entry for entry in run.evaluations if "loss" in entry]
    return Series(run.letter, [entry["epoch"] for entry in known], [entry["loss"] for entry in known])


def pace_plots(runs: Sequence[Run]) -> list[Plot]:
    """The tokens encoded a second; one figure, or none."""
    known = [
        (run, {step.number: step.tokens_per_second for step in run.steps if step.tokens_per_second is not None})
        for run in runs
    ]
    lines = [_over_epochs(run, paces) for run, paces in known if len(paces) > 1]
    caption = f"Tokens that went through the encoder, queries and labels. {LOGGED}"
    label = "tokens a second"
    return [curve("pace", "Speed", caption, lines, x_label="epochs", y_label=label, from_zero=True)] if lines else []


def _over_epochs(run: Run, values: dict[int, float]) -> Series:
    """The values at their steps; the means of neighbours where there are more than a figure can show."""
    steps = np.array(list(values)) / _steps_per_epoch(run)
    parts = [np.array_split(numbers, min(DENSE, len(values))) for numbers in (steps, np.array(list(values.values())))]
    x, y = ([float(part.mean()) for part in of_one] for of_one in parts)
    return Series(run.letter, x, y)


def _steps_per_epoch(run: Run) -> float:
    if run.evaluations:
        return run.evaluations[-1]["step"] / max(1, run.evaluations[-1]["epoch"])
    return run.steps[-1].total / int(run.config.get("num_epochs", 1))


def _metric(runs: Sequence[Run], metric: str) -> list[Plot]:
    lines, splits = [], dict.fromkeys(str(entry.get("split", "?")) for run in runs for entry in run.evaluations)
    for run in runs:
        known = [entry for entry in run.evaluations if metric in entry]
        if len(known) > 1:
            lines.append(Series(run.letter, [entry["epoch"] for entry in known], [entry[metric] for entry in known]))
    if not lines:
        return []
    words = {"val": "held-out training points", "tst": "test points"}
    where = " or ".join(words.get(split, split) for split in splits)
    name, title = "curve-" + re.sub(r"\W+", "-", metric), f"{metric} in training"
    return [curve(name, title, f"On {where}.", lines, x_label="epochs", y_label="percent", percent=True)]
