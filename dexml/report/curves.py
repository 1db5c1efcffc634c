"""Training curves of runs: the loss, and metrics at every evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from dexml.report.figures import Plot, Series, curve
from dexml.report.run import Run

METRICS = ("P@1", "R@100")  # drawn beside each run's track_metric
MOST = 4  # metrics drawn


def training_plots(runs: Sequence[Run], notes: list[str]) -> list[Plot]:
    """The loss over epochs, and each metric that some run has measured twice."""
    plots = [_loss(runs)] if any(run.steps or len(run.evaluations) > 1 for run in runs) else []
    measured = [plot for metric in _metrics(runs)[:MOST] if (plot := _metric(runs, metric)) is not None]
    if not measured:
        notes.append("Metrics were measured once only, at the end: there are no curves of them.")
    return plots + measured


def _metrics(runs: Sequence[Run]) -> list[str]:
    tracked = [str(run.config["track_metric"]) for run in runs if run.config.get("track_metric")]
    return list(dict.fromkeys([*tracked, *METRICS]))


def _loss(runs: Sequence[Run]) -> Plot:
    lines = [line for run in runs if len((line := _losses(run)).x)]
    finest = any(run.steps for run in runs)
    caption = "Loss of single steps, as logged." if finest else "Mean loss since the evaluation before."
    return curve("loss", "Training loss", caption, lines, x_label="epochs", y_label="loss")


def _losses(run: Run) -> Series:
    """The logged steps, without any the means between evaluations."""
    per_epoch = steps_per_epoch(run)
    if run.steps and per_epoch:
        return Series(run.letter, [s.number / per_epoch for s in run.steps], [s.loss for s in run.steps])
    known = [entry for entry in run.evaluations if "loss" in entry]
    return Series(run.letter, [entry["epoch"] for entry in known], [entry["loss"] for entry in known])


def steps_per_epoch(run: Run) -> float | None:
    if run.evaluations:
        return run.evaluations[-1]["step"] / max(1, run.evaluations[-1]["epoch"])
    epochs = run.config.get("num_epochs")
    return run.steps[-1].total / epochs if run.steps and epochs else None


def _metric(runs: Sequence[Run], metric: str) -> Plot | None:
    lines, splits = [], dict.fromkeys(str(entry.get("split", "?")) for run in runs for entry in run.evaluations)
    for run in runs:
        known = [entry for entry in run.evaluations if metric in entry]
        if len(known) > 1:
            lines.append(Series(run.letter, [entry["epoch"] for entry in known], [entry[metric] for entry in known]))
    if not lines:
        return None
    words = {"val": "held-out training points", "tst": "test points"}
    where = " or ".join(words.get(split, split) for split in splits)
    return curve(f"curve-{metric}", f"{metric} in training", f"On {where}.", lines, x_label="epochs", y_label="percent")
