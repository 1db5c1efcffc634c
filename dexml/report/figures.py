"""Figures as SVG for the page, in colours that follow its light or dark scheme, and as PNG for slides.

A figure is 360 CSS pixels wide, so that its words can be read on a phone without zooming. Runs differ in colour,
marker and letter, never in colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from dexml.report.run import LETTERS

# Name of a CSS variable of page.css -> its light value. The page may change any of them for the dark scheme.
COLOURS = {"ink": "#1a2129", "muted": "#55606c", "line": "#d9dee4", "paper": "#ffffff"}
COLOURS |= {"A": "#0b66a0", "B": "#bf4a10", "C": "#6f4a9e", "D": "#00755a", "E": "#a0306c", "F": "#7a6200"}
MARKERS = dict(zip(LETTERS, "osD^vP", strict=True))
STYLE: Any = {
    **{"font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "svg.fonttype": "none"},
    **{"text.color": COLOURS["ink"], "axes.labelcolor": COLOURS["muted"], "axes.edgecolor": COLOURS["line"]},
    **{"xtick.labelcolor": COLOURS["muted"], "ytick.labelcolor": COLOURS["muted"], "text.parse_math": False},
    **{"xtick.color": COLOURS["line"], "ytick.color": COLOURS["line"], "grid.color": COLOURS["line"]},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.grid": True},
    **{"axes.grid.axis": "y", "grid.linewidth": 0.7, "axes.axisbelow": True, "ytick.major.size": 0},
}
SIZE = (3.75, 2.6)  # inches of 72 points; shown at 1.33 pixels a point
PNG_DPI = 220


@dataclass(frozen=True)
class Series:
    """One run's line: y over x, and the ends of its whiskers where known, all of one length [n]."""

    letter: str
    x: Sequence[float] | NDArray[Any]
    y: Sequence[float] | NDArray[Any]
    low: Sequence[float] | NDArray[Any] | None = None
    high: Sequence[float] | NDArray[Any] | None = None


@dataclass(frozen=True)
class Plot:
    """A drawn figure. `alt` says in words what it shows."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes = field(repr=False)


def curve(
    name: str,
    title: str,
    caption: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    bound: Series | None = None,
    bound_name: str = "best possible",
    log_x: bool = False,
    from_zero: bool = False,
    percent: bool = False,
) -> Plot:
    """Lines over a number; `bound` is a dashed line to measure them by."""
    with _axes() as (figure, axes):
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.minorticks_off()
        if bound is not None:
            axes.plot(bound.x, bound.y, color=COLOURS["muted"], lw=1.1, ls=(0, (4, 3)))
            _note(axes, bound, bound_name)
        for one in series:
            few = len(one.x) <= 12
            axes.plot(
                one.x, one.y, color=COLOURS[one.letter], lw=1.8, marker=MARKERS[one.letter] if few else "", ms=4.5
            )
        _label(axes, x_label, y_label, from_zero, top=100 if percent else None)
        if len(series) > 1:
            _letters(axes, series)
        return _drawn(figure, name, title, caption, _in_words(title, series))


def groups(
    name: str,
    title: str,
    caption: str,
    names: Sequence[str],
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
) -> Plot:
    """A value in each named group: as bars for one run, as dots for several; with whiskers where known."""
    with _axes() as (figure, axes):
        if len(series) == 1:
            _bars(axes, series[0])
        else:
            apart = min(0.5 / len(series), 0.035 * len(names))
            for place, one in enumerate(series):
                _dots(axes, one, np.asarray(one.x, float) + (place - (len(series) - 1) / 2) * apart)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.tick_params(axis="x", length=0)
        _label(axes, x_label, y_label, from_zero=True, top=100 if len(series) > 1 else 110)
        if len(series) > 1:
            _letters(axes, series)
        return _drawn(figure, name, title, caption, _in_words(title, series, names))


def _bars(axes: Axes, one: Series) -> None:
    """Bars that say their value, with room for it above the highest."""
    axes.margins(y=0.1)
    colour, y = COLOURS[one.letter], np.asarray(one.y, float)
    axes.bar(one.x, y, width=0.72, color=colour)
    tops = y
    if one.low is not None and one.high is not None:
        axes.vlines(one.x, one.low, one.high, color=COLOURS["ink"], lw=1.2)
        tops = np.asarray(one.high, float)
    for x, value, top in zip(one.x, y, tops, strict=True):
        words = f"{value:.0f}" if y.max() >= 20 else f"{value:.1f}"
        axes.annotate(words, (x, top), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8)


def _dots(axes: Axes, one: Series, x: NDArray[Any]) -> None:
    colour, y = COLOURS[one.letter], np.asarray(one.y, float)
    axes.plot(x, y, color=colour, lw=1, alpha=0.45, clip_on=False)
    if one.low is not None and one.high is not None:
        axes.vlines(x, one.low, one.high, color=colour, lw=1.4, clip_on=False)
    axes.plot(x, y, color=colour, lw=0, marker=MARKERS[one.letter], ms=5, mec=COLOURS["paper"], mew=0.8, clip_on=False)


def _letters(axes: Axes, series: Sequence[Series]) -> None:
    """Each run's letter beside the right end of its line, moved apart where lines end close together."""
    ends = [(float(np.asarray(one.y)[-1]), one) for one in series if len(one.y)]
    low, high = axes.get_ylim()
    for y, (_, one) in zip(_apart([end for end, _ in ends], 0.075 * (high - low)), ends, strict=True):
        axes.annotate(
            one.letter, (1, y), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
            color=COLOURS[one.letter], weight="bold", va="center", annotation_clip=False,
        )  # fmt: skip


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as a sweep allows so that no two are nearer than `gap`."""
    order = np.argsort(values, kind="stable")
    steps = np.arange(len(values)) * gap
    placed = np.maximum.accumulate(np.asarray(values, float)[order] - steps) + steps
    placed -= (placed - np.asarray(values, float)[order]).mean() if len(values) else 0
    out = np.empty(len(values))
    out[order] = placed
    return out.tolist()


def _note(axes: Axes, line: Series, words: str) -> None:
    at = len(line.x) // 2
    axes.annotate(
        words, (line.x[at], line.y[at]), xytext=(0, 4), textcoords="offset points", ha="right",
        color=COLOURS["muted"], fontsize=8,
    )  # fmt: skip


def _label(axes: Axes, x_label: str, y_label: str, from_zero: bool, top: float | None) -> None:
    """Names of both axes; the upper one ends at `top` at most."""
    axes.set_xlabel(x_label, labelpad=5)
    axes.set_title(y_label, loc="left", fontsize=9, color=COLOURS["muted"], pad=9)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter("{x:,.6g}")
    low, high = axes.get_ylim()
    axes.set_ylim(0 if from_zero else low, high if top is None else min(high, top))


@contextmanager
def _axes() -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        yield figure, figure.add_subplot()


def _drawn(figure: Figure, name: str, title: str, caption: str, alt: str) -> Plot:
    with matplotlib.rc_context({"svg.hashsalt": name}):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=PNG_DPI, facecolor=COLOURS["paper"])
    return Plot(name, title, caption, alt, _inline(text.getvalue(), name), image.getvalue())


def _inline(svg: str, name: str) -> str:
    """The <svg> element alone: colours as CSS variables, ids that are unique on the page, sizes left to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for variable, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{variable})")
    return svg


def _in_words(title: str, series: Sequence[Series], names: Sequence[str] | None = None) -> str:
    """Alternative text: the values of at most 12 places of each line."""
    parts = []
    for one in series:
        at = np.unique(np.linspace(0, len(one.x) - 1, min(12, len(one.x))).astype(int))
        places = [names[int(one.x[i])] if names else f"{one.x[i]:g}" for i in at]
        values = ", ".join(f"{place}: {one.y[i]:.3g}" for place, i in zip(places, at, strict=True))
        parts.append(f"run {one.letter}: {values}" if len(series) > 1 else values)
    return f"{title}. {'; '.join(parts)}."
