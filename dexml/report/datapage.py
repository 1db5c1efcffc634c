"""The page of `dexml validate`: what is in a data folder, put into its template."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from dexml import __version__
from dexml.data.findings import Finding
from dexml.data.statistics import Measure, Statistics
from dexml.report.figures import COLOURS, Plot, Series, curve, groups

BINS = 9  # of a histogram
LETTER = "A"  # whose colour the figures have
POINTS = 60  # of the curve
COLUMNS = ("mean", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")


class Tile(NamedTuple):
    name: str
    value: str
    meaning: str


def build_data_page(statistics: Statistics, findings: Sequence[Finding]) -> str:
    loader = PackageLoader("dexml.report", "templates")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    warnings = sum(finding.warns for finding in findings)
    return environment.get_template("data.html").render(
        dataset=statistics.dataset.name,
        verdict=_verdict(warnings, len(findings) - warnings),
        tiles=_tiles(statistics),
        findings=findings,
        columns=COLUMNS,
        measures=statistics.measures,
        plots=_plots(statistics),
        made=datetime.now(),
        version=__version__,
        colours=COLOURS,
    )


def _verdict(warnings: int, notes: int) -> str:
    told = "Training can start"
    if warnings:
        told += f", but {'one thing looks' if warnings == 1 else f'{warnings} things look'} wrong"
    return f"{told}." + (f" {notes} more {'is' if notes == 1 else 'are'} worth knowing." if notes else "")


def _tiles(statistics: Statistics) -> list[Tile]:
    data = statistics.dataset
    of_point, of_label = np.diff(data.trn.relevance.indptr), statistics.points_L
    dev = f", {len(data.dev):,} for development" if data.dev else ""
    unseen = int((of_label == 0).sum())
    words = next(one for one in statistics.measures if one.key == "words-trn")
    return [
        Tile("Training texts", f"{len(data.trn):,}", f"{len(data.tst):,} for the test{dev}"),
        Tile("Labels", f"{data.n_labels:,}", f"{unseen:,} without a training text"),
        Tile("Labels a text", f"{of_point.mean():.2f}", f"median {np.median(of_point):.0f}, most {of_point.max():,}"),
        Tile("Texts a label", f"{np.median(of_label):,.0f}", f"median; mean {of_label.mean():.1f}"),
        Tile("Words a text", f"{words.median:,.0f}", "median of the training texts"),
    ]


# ---- figures --------------------------------------------------------------------------------------------------------

FIGURES = (
    ("labels-trn", "Labels of a text", "labels", "% of the training texts"),
    ("points", "Training texts of a label", "training texts", "% of the labels"),
    ("words-trn", "Length of the texts", "words", "% of the training texts"),
    ("words-lbl", "Length of the label texts", "words", "% of the labels"),
    ("tokens-trn", "Tokens of the texts", "tokens, special ones included", "% of the training texts"),
    ("tokens-lbl", "Tokens of the label texts", "tokens, special ones included", "% of the labels"),
)


def _plots(statistics: Statistics) -> list[Plot]:
    measures = {one.key: one for one in statistics.measures}
    plots = [_histogram(measures[key], *words) for key, *words in FIGURES if key in measures]
    return [*plots[:2], _head(statistics.points_L), *plots[2:]]


def _histogram(one: Measure, title: str, x_label: str, y_label: str) -> Plot:
    edges = bin_edges(one.values)
    bins = np.maximum(np.searchsorted(edges, one.values, side="right") - 1, 0)
    share = 100 * np.bincount(bins, minlength=len(edges))
    series = [Series(LETTER, range(len(edges)), share / max(1, len(one.values)))]
    return groups(one.key, title, _caption(one), bin_names(edges, one.values), series, x_label=x_label, y_label=y_label)


def _caption(one: Measure) -> str:
    told = f"Mean {one.mean:,.1f}, median {one.median:,.0f}, most {one.values.max():,.0f}."
    return f"{told} {one.cut:.1%} are longer than {one.most} and cut off there." if one.cut else told


def bin_edges(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where at most BINS bins begin: single numbers where few occur, else ever wider ones.

    They span all but 1 % at each end, which the first and the last bin take in.
    """
    low, high = int(np.quantile(values, 0.01, method="lower")), int(np.quantile(values, 0.99, method="higher"))
    if high - low < BINS:
        return np.arange(low, high + 1)
    zero = [0] if low == 0 else []
    wide = np.geomspace(max(low, 1), high, BINS - len(zero))
    return np.unique(np.concatenate([zero, np.round(wide)]).astype(np.int64))


def bin_names(edges: NDArray[np.int64], values: NDArray[np.integer]) -> list[str]:
    """`≤ 1`, `2–3`, ... and `40+`; what is wide stands in two lines."""
    spans = list(zip(edges[:-1].tolist(), (edges[1:] - 1).tolist(), strict=True))
    names = [f"{a}" if a == b else f"{a}–{b}" if b < 100 else f"{a}–\n{b}" for a, b in spans]
    names.append(f"{edges[-1]}+" if values.max() > edges[-1] else f"{edges[-1]}")
    if spans and values.min() < edges[0]:
        names[0] = f"≤ {spans[0][1]}"
    return names


def _head(points_L: NDArray[np.int64]) -> Plot:
    """Which share of the training pairs the most frequent labels hold."""
    covered = 100 * np.cumsum(np.sort(points_L)[::-1]) / points_L.sum()
    ranks = np.unique(np.linspace(1, len(points_L), POINTS).astype(np.int64))
    tenth = covered[max(1, len(points_L) // 10) - 1]
    return curve(
        "head", "Head and tail", f"The most frequent tenth of the labels holds {tenth:.0f} % of all training pairs.",
        [Series(LETTER, 100 * ranks / len(points_L), covered[ranks - 1])],
        x_label="% of the labels, the most frequent first", y_label="% of the training pairs",
        from_zero=True, percent=True,
    )  # fmt: skip
