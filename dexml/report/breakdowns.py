"""Where the runs are good and where they are not, as figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dexml.evaluation.breakdown import LabelGroup, by_frequency, by_head, by_points
from dexml.evaluation.intervals import bootstrap
from dexml.evaluation.metrics import upper_bounds
from dexml.report.evidence import KS, Evidence
from dexml.report.figures import Plot, Series, curve, groups

FAR = 10  # places in which true labels are looked for
POSITIVES = (2, 3, 4, 5, 8)  # where a group of points by their number of labels begins
LENGTHS = 6  # groups of points by length

Parts = dict[str, list[LabelGroup]]  # by letter of the run


def breakdown_plots(evidence: Evidence) -> list[Plot]:
    """By frequency of the labels, by number of labels and length of the points, by depth of the list."""
    return [*_by_label(evidence), *_by_point(evidence), _by_depth(evidence)]


# ---- by label -------------------------------------------------------------------------------------------------------


def _by_label(evidence: Evidence) -> list[Plot]:
    near, far = _near(evidence), min(FAR, evidence.depth)
    given = [(one, (lists.ids, evidence.truth, evidence.label_counts)) for one, lists in evidence.ranked.items()]
    bins: Parts = {one: by_frequency(*args, ks=(near, far)) for one, args in given}
    parts: Parts = {one: by_head(*args, ks=(near, far)) for one, args in given}
    found, frequency = f"% of true labels found in the first {far}", "training points of a label, mean of the group"
    return [
        groups(
            "frequency", "Frequent and rare labels",
            "Each group holds a tenth of the training pairs; the last one labels that training has never seen.",
            *_drawable(bins, lambda group: group.recall[far], _mean), x_label=frequency, y_label=found,
        ),
        groups(
            "head-tail", "Head, torso, tail", "Below: training points of a label, and its pairs in the test set.",
            *_drawable(parts, lambda group: group.recall[far], _span), x_label="", y_label=found,
        ),
        groups(
            "contribution", f"What P@{near} is made of", f"The shares of the groups add up to P@{near}.",
            *_drawable(bins, lambda group: group.contribution[near], _mean),
            x_label=frequency, y_label=f"points of P@{near}",
        ),
    ]  # fmt: skip


def _drawable(
    parts: Parts, value: Callable[[LabelGroup], float], name: Callable[[LabelGroup], str]
) -> tuple[list[str], list[Series]]:
    """Names and series of the groups that have test pairs: of the others nothing can be said."""
    first = next(iter(parts.values()))
    kept = [at for at, group in enumerate(first) if group.positives]
    places = range(len(kept))
    series = [Series(one, places, [value(of_run[at]) for at in kept]) for one, of_run in parts.items()]
    return [name(first[at]) for at in kept], series


def _mean(group: LabelGroup) -> str:
    return f"{group.mean_frequency:.0f}" if group.mean_frequency else "none"


def _span(group: LabelGroup) -> str:
    return f"{group.name.replace(' (', chr(10)).rstrip(')')}\n{group.positives:,} pairs"


# ---- by point -------------------------------------------------------------------------------------------------------


def _by_point(evidence: Evidence) -> list[Plot]:
    words = np.fromiter((text.count(" ") + 1 for text in evidence.dataset.tst.texts), np.int64)
    lengths = np.unique(np.quantile(words, np.arange(1, LENGTHS) / LENGTHS, method="higher"))
    caption = "With 95 % intervals; below, the number of test texts."
    by_labels = _graded(evidence, evidence.true_n, POSITIVES)
    by_length = _graded(evidence, words, lengths.tolist())
    grade = _grade(evidence)
    return [
        groups("positives", "Few and many labels", caption, *by_labels, x_label="true labels of a text", y_label=grade),
        groups("length", "Short and long texts", caption, *by_length, x_label="words of a text", y_label=grade),
    ]


def _graded(evidence: Evidence, values: NDArray[np.int64], edges: Sequence[float]) -> tuple[list[str], list[Series]]:
    """Names and series of groups of points that begin at the edges."""
    grade, part_N = _grade(evidence), np.searchsorted(edges, values, side="right")
    series, names = [], []
    for one, lists in evidence.ranked.items():
        found = by_points(lists.ids, evidence.truth, values, edges, ks=(_near(evidence),))
        sums = evidence.sums[one].only([grade])
        ranges = [bootstrap(sums.rows(part_N == part))[grade] for part in np.unique(part_N)]
        low, high = zip(*ranges, strict=True)
        series.append(Series(one, range(len(found)), [group.metrics[grade] for group in found], low, high))
        names = [f"{group.name.replace(' to ', '–')}\n{group.points:,}" for group in found]
    return names, series


def _near(evidence: Evidence) -> int:
    return max(k for k in KS if k <= evidence.depth)


def _grade(evidence: Evidence) -> str:
    """A metric that reaches 100 whatever the number of labels."""
    return f"nDCG@{_near(evidence)}"


# ---- by depth -------------------------------------------------------------------------------------------------------


def _by_depth(evidence: Evidence) -> Plot:
    """Recall at every depth, beside the most it can be."""
    share_N = 1 / np.maximum(evidence.true_n, 1)
    lines = []
    for one, lists in evidence.ranked.items():
        recall = 100 * (share_N @ lists.hits).cumsum() / len(share_N)
        lines.append(Series(one, np.arange(1, len(recall) + 1), recall))
    depths = range(1, max(len(line.x) for line in lines) + 1)
    best = upper_bounds(evidence.truth, depths)
    return curve(
        "depth", "How deep to look", "A text's true labels among its first k predictions, mean over the texts.",
        lines, bound=Series("", depths, [best[f"R@{k}"] for k in depths]),
        x_label="k, predictions looked at", y_label="% found", log_x=True, from_zero=True, percent=True,
    )  # fmt: skip
