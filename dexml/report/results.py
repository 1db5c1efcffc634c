"""The metric table, its intervals and the sentence that sums it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dexml.evaluation.intervals import PointSums, bootstrap, compare
from dexml.evaluation.metrics import metric_columns, upper_bounds
from dexml.report.evidence import Evidence
from dexml.report.run import Run

MEANINGS = {
    "P@1": "texts whose first prediction is true",
    "P@5": "of the first five predictions are true",
    "PSP@5": "of the gain possible, rare labels counting more",
    "R@100": "of a text's labels are among the first hundred",
}
DEPTHS = {"R@10": "ten", "R@50": "fifty", "R@100": "hundred"}
SIGNIFICANT = 0.05
ROUNDING = 0.005  # percent


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
        return _signed(self.value, 2)

    @property
    def range(self) -> str:
        return f"{_signed(self.low)} to {_signed(self.high)}"


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


def metric_lines(runs: Sequence[Run], evidence: Evidence | None, notes: list[str]) -> list[Line]:
    """Every metric of the TSV that some run has; intervals and gaps where the runs have kept their scores."""
    every: dict[str, Any] = {name: value for run in runs for name, value in run.metrics.items()}
    names = [name for name in metric_columns(every) if name != "nDCG@1"]  # the same as P@1
    kinds = [name.partition("@")[0] for name in names]
    sums = _trusted(runs, evidence, notes)
    intervals = {letter: bootstrap(own) for letter, own in sums.items()}
    gaps = [_gaps(sums, runs[0], run) for run in runs[1:]]
    bounds = _bounds(evidence, names)
    return [
        Line(
            name,
            [_cell(run, name, intervals.get(run.letter, {})) for run in runs],
            [of_run.get(name) for of_run in gaps],
            bounds.get(name),
            i > 0 and kinds[i] != kinds[i - 1],
        )
        for i, name in enumerate(names)
    ]


def _trusted(runs: Sequence[Run], evidence: Evidence | None, notes: list[str]) -> dict[str, PointSums]:
    """The sums of runs whose scores give the metrics they have written down."""
    sums = {} if evidence is None else evidence.sums
    trusted = {}
    for run in runs:
        if run.tested is None or run.letter not in sums:
            continue
        again = sums[run.letter].values()
        apart = [name for name in again if abs(again[name] - run.tested.get(name, again[name])) > ROUNDING]
        if apart:
            notes.append(
                f"Run {run.letter}: its kept scores give {apart[0]} {again[apart[0]]:.2f}, metrics.json says "
                f"{run.tested[apart[0]]:.2f}: they are of another model or data. Its intervals are left out."
            )
        else:
            trusted[run.letter] = sums[run.letter]
    return trusted


def _gaps(sums: Mapping[str, PointSums], first: Run, run: Run) -> dict[str, Gap]:
    if first.letter not in sums or run.letter not in sums:
        return {}
    one, other = sums[run.letter], sums[first.letter]
    common = [name for name in one.names if name in other.names]
    found = compare(one.only(common), other.only(common))
    return {name: Gap(c.difference, c.low, c.high, c.p_value < SIGNIFICANT) for name, c in found.items()}


def _bounds(evidence: Evidence | None, names: Sequence[str]) -> dict[str, float]:
    depths = {int(depth) for kind, _, depth in (name.partition("@") for name in names) if kind in ("P", "R")}
    return {} if evidence is None or not depths else upper_bounds(evidence.truth, sorted(depths))


def _cell(run: Run, name: str, intervals: Mapping[str, tuple[float, float]]) -> Cell:
    return Cell(run, run.metrics.get(name), *intervals.get(name, (None, None)))


# ---- in words -------------------------------------------------------------------------------------------------------


def verdict(lines: Sequence[Line], n_points: int | None) -> str:
    """The page in a sentence."""
    first = next((line for line in lines if line.metric == "P@1"), lines[0] if lines else None)
    if first is None:
        return ""
    return _alone(first, lines, n_points) if len(first.cells) == 1 else _leader(first)


def _alone(first: Line, lines: Sequence[Line], n_points: int | None) -> str:
    (cell,) = first.cells
    points = {"tst": "test texts", "val": "held-out training texts"}.get(cell.run.split, "texts")
    number = f"{n_points:,} {points}" if n_points else points
    margin = f" (± {cell.margin:.1f})" if cell.margin is not None else ""
    if first.metric != "P@1":
        return f"{first.metric} is {cell.value:.1f} %{margin} on {number}."
    deep = next((line for line in reversed(lines) if line.metric in ("R@100", "R@50", "R@10")), None)
    start = f"For {cell.value:.1f} %{margin} of {number} the first prediction is a true label"
    if deep is None:
        return start + "."
    depth = DEPTHS[deep.metric]
    return f"{start}; the first {depth} hold {deep.cells[0].value:.1f} % of a text's labels."


def _leader(line: Line) -> str:
    known = sorted((cell for cell in line.cells if cell.value is not None), key=lambda cell: -(cell.value or 0))
    if len(known) < 2:
        return f"Only run {known[0].run.letter} has {line.metric}." if known else ""
    if len({cell.run.split for cell in known}) > 1:
        return "The runs were measured on different points so far: their figures cannot be compared."
    best, base = known[0], line.cells[0]
    other = known[1] if best is base else base
    gap = line.gaps[line.cells.index(other if best is base else best) - 1]
    names = {cell.run.letter: f"{cell.run.letter} ({cell.run.name})" for cell in (best, other)}
    if gap is None:
        return f"{names[best.run.letter]} has the highest {line.metric}: {best.value:.1f} %."
    if best is base:
        gap = Gap(-gap.value, -gap.high, -gap.low, gap.significant)
    lead = f"{gap.value:.1f} points ahead of {names[other.run.letter]}"
    interval = f"95 % interval {gap.range}"
    if gap.significant:
        return f"{names[best.run.letter]} leads at {line.metric} with {best.value:.1f} %, {lead}; {interval}."
    return f"No clear winner at {line.metric}: {names[best.run.letter]} is {lead}, within chance; {interval}."


def _signed(value: float, digits: int = 1) -> str:
    """With its sign, a true minus, and no minus before zero."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def caption(lines: Sequence[Line]) -> str:
    """What the columns of the table are."""
    words = "Percent; higher is better."
    if any(cell.low is not None for line in lines for cell in line.cells):
        words += " Small: 95 % interval, by drawing the test points again (bootstrap)."
    if any(any(line.gaps) for line in lines):
        words += " * differs from A beyond chance (p < 0.05, randomisation over the same points)."
    return words
