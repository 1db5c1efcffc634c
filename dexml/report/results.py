"""The metric table, its intervals and the sentence that sums it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dexml.evaluation.metrics import metric_columns
from dexml.report.evidence import Evidence, upper_bound
from dexml.report.run import Run

MEANINGS = {
    "P@1": "texts whose first prediction is true",
    "P@5": "of the first five predictions are true",
    "PSP@5": "of the gain possible, rare labels counting more",
    "R@100": "of a text's labels are among the first hundred",
}


@dataclass(frozen=True)
class Cell:
    """A metric of a run in percent, with its 95 % interval where known."""

    run: Run
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def margin(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Gap:
    """A run's metric less that of the first run, over the same points."""

    value: float
    low: float
    high: float
    significant: bool

    @property
    def text(self) -> str:
        return f"{self.value:+.2f}".replace("-", "−")

    @property
    def range(self) -> str:
        return f"{self.low:+.1f} to {self.high:+.1f}".replace("-", "−")


@dataclass(frozen=True)
class Line:
    """A metric of all runs."""

    metric: str
    cells: list[Cell]
    gaps: list[Gap | None]
    bound: float | None
    opens: bool
    """The first line of its kind."""

    @property
    def headline(self) -> bool:
        return self.metric in MEANINGS

    @property
    def meaning(self) -> str:
        return MEANINGS[self.metric]


def metric_lines(runs: Sequence[Run], evidence: Evidence | None) -> list[Line]:
    """Every metric of the TSV that some run has."""
    every: dict[str, Any] = {name: value for run in runs for name, value in run.metrics.items()}
    names = [name for name in metric_columns(every) if name != "nDCG@1"]  # the same as P@1
    kinds = [name.partition("@")[0] for name in names]
    return [
        Line(
            name,
            [Cell(run, run.metrics.get(name)) for run in runs],
            [None for run in runs[1:]],
            None if evidence is None else upper_bound(name, evidence.true_n),
            i > 0 and kinds[i] != kinds[i - 1],
        )
        for i, name in enumerate(names)
    ]


def verdict(lines: Sequence[Line], n_points: int | None) -> str:
    return ""
