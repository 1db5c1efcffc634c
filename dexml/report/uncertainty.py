"""What `dexml uncertainty` found for an ensemble whose first member is a run on the page, as figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexml.report.figures import Plot, Series, curve, groups
from dexml.report.run import Run

SUMMARY = Path("uncertainty", "summary.json")
LABELS = {"1 - mean p": "1 - p", "1 - p of one member": "1 - p, one", "knowledge": "knowledge", "total": "total"}
TEXTS = {"1 - max mean p": "1 - max p", "data": "data", "knowledge": "knowledge", "total": "total"}


def uncertainty_plots(runs: Sequence[Run], notes: list[str]) -> list[Plot]:
    """How well uncertainty points at wrong first labels and at other texts, and what is right if the rest is kept.

    Of the first run that has a summary; one that cannot be read is told in `notes`.
    """
    for run in runs:
        path = run.path / SUMMARY
        if path.is_file():
            try:
                return _plots(run, json.loads(path.read_bytes()))
            except (ValueError, KeyError, TypeError) as error:
                notes.append(f"Run {run.letter}: {path} cannot be read ({error!r}); uncertainty is left out.")
    return []


def _plots(run: Run, found: Mapping[str, Any]) -> list[Plot]:
    wrong, kept = found["wrong labels"]["1"], found["kept"]
    size = f"{len(found['members'])} members, {found['points']:,} test texts."
    plots = [
        _detection(
            run, "uncertainty-wrong", "Wrong first labels found", wrong["scores"], LABELS,
            f"{100 * wrong['wrong']:.1f} % of the ensemble's first labels are wrong; how scores tell which. {size}",
        ),
        curve(
            "uncertainty-kept", "Answering only where sure",
            "Texts in the order of 1 - p of their first label: what is right among the surest of them.",
            [Series(run.letter, kept["share"], kept["1 - mean p"])],
            x_label="% of the texts answered", y_label="% of the first labels that are true", percent=True,
        ),
    ]  # fmt: skip
    if "other texts" in found:
        caption = f"How well each score of a text tells {found['others']:,} texts of another kind from the test texts."
        plots.append(
            _detection(run, "uncertainty-other", "Texts of another kind found", found["other texts"], TEXTS, caption)
        )
    return plots


def _detection(
    run: Run, name: str, title: str, scores: Mapping[str, Any], shown: Mapping[str, str], caption: str
) -> Plot:
    judged = {shown[score]: 100 * scores[score]["auroc"] for score in shown if scores[score]}
    bars = Series(run.letter, range(len(judged)), list(judged.values()))
    return groups(name, title, caption, list(judged), [bars], x_label="score", y_label="AUROC, % (50 is chance)")
