"""How far a metric would move with other test points of the same kind: bootstrap intervals, and two runs compared.

Every metric here is a sum over points over a sum over points, so drawing the points again and again is a product of
counts with two small matrices. Points are drawn as wholes; the labels and their weights stay as they are.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals and ratios of sums.

Legend: N points, M metrics, R resamples (r at a time).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats
from dexml.evaluation.metrics import Inputs, percent
from dexml.evaluation.topk import Csr, TopkError

_CELLS = 1 << 22  # draws held at a time: 100 MB


@dataclass(frozen=True)
class PointSums:
    """What each point adds to both sides of every metric."""

    names: tuple[str, ...]
    numerator: Floats
    """[N, M]"""
    denominator: Floats
    """[N, M]"""

    def values(self) -> dict[str, float]:
        """The metrics in percent, those of `compute_metrics`."""
        totals = zip(self.names, self.numerator.sum(axis=0), self.denominator.sum(axis=0), strict=True)
        return {name: percent(float(above), float(below)) for name, above, below in totals}

    def rows(self, points: npt.ArrayLike) -> PointSums:
        """Of some points only: their numbers, or a mask [N]."""
        some = np.asarray(points)
        return PointSums(self.names, self.numerator[some], self.denominator[some])

    def only(self, names: Collection[str]) -> PointSums:
        """With some metrics only, in their present order; TopkError for one that is not there."""
        absent = sorted(set(names) - set(self.names))
        if absent:
            raise TopkError(f"{', '.join(absent)} not measured: there are {', '.join(self.names)}")
        kept = [at for at, name in enumerate(self.names) if name in names]
        return PointSums(tuple(self.names[at] for at in kept), self.numerator[:, kept], self.denominator[:, kept])


def point_sums(
    topk_ids: npt.ArrayLike,
    relevance_csr: Csr,
    ks: Sequence[int] = (1, 3, 5),
    inv_propensity: npt.ArrayLike | None = None,
    recall_ks: Sequence[int] | None = None,
    mrr_k: int | None = None,
    extras: Collection[str] = (),
) -> PointSums:
    """Both sides of every metric point by point; the arguments are those of `compute_metrics`.

    Lists are taken as they are: filter them first (`apply_filters`). Points without labels count as 0. The arrays hold
    16 bytes a point and metric.
    """
    inputs = Inputs.of(topk_ids, relevance_csr, ks, inv_propensity, recall_ks=recall_ks, mrr_k=mrr_k, extras=extras)
    counted = inputs.counted()
    names: tuple[str, ...] = ()
    above: list[Floats] = []
    below: list[Floats] = []
    for rows, numerators, denominators in inputs.columns():
        names = tuple(numerators)
        above.append(np.stack([numerators[name] for name in names], axis=1))
        below.append(np.stack([denominators.get(name, counted[rows]) for name in names], axis=1))
    return PointSums(names, np.concatenate(above), np.concatenate(below))


def bootstrap(
    sums: PointSums, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """(low, high) in percent of every metric: the central `level` of its values on points drawn with replacement."""
    _check(resamples, level)
    drawn = np.concatenate([_ratios(counts, sums) for counts in _draws(len(sums.numerator), resamples, seed)])
    low, high = _central(drawn, level)
    return {name: (float(a), float(b)) for name, a, b in zip(sums.names, low, high, strict=True)}


@dataclass(frozen=True)
class Comparison:
    """The first run less the second, in percent points."""

    difference: float
    low: float
    high: float
    """the interval of the difference"""
    p_value: float
    """how often runs that are equally good would differ by as much, in either direction"""


def compare(
    a: PointSums, b: PointSums, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Comparison]:
    """Two runs on the same points, metric by metric.

    The interval is that of the differences on points drawn with replacement, the same ones for both runs. The p-value
    is that of a randomisation test: the two runs trade places at random, point by point; it is 1 / (resamples + 1) at
    least. Both look at one pair of runs and know nothing of other seeds, nor of how many pairs were looked at.

    Raises:
        TopkError: the runs were measured on different points, labels or metrics.
    """
    _check(resamples, level)
    if (
        a.names != b.names
        or a.denominator.shape != b.denominator.shape
        or not np.allclose(a.denominator, b.denominator)
    ):
        raise TopkError(
            "the two runs were not measured on the same points with the same metrics: compare like with like"
        )
    apart = PointSums(a.names, a.numerator - b.numerator, a.denominator)
    whole = np.ones((1, len(apart.numerator)))
    (difference,) = _ratios(whole, apart)
    drawn = np.concatenate([_ratios(counts, apart) for counts in _draws(len(apart.numerator), resamples, seed)])
    low, high = _central(drawn, level)
    traded = np.concatenate([_ratios(signs, apart, whole) for signs in _signs(len(apart.numerator), resamples, seed)])
    as_far = (np.abs(traded) >= np.abs(difference) - 1e-9).sum(axis=0)
    p_value = (as_far + 1) / (resamples + 1)
    columns = zip(difference, low, high, p_value, strict=True)
    return {name: Comparison(*map(float, numbers)) for name, numbers in zip(a.names, columns, strict=True)}


def _ratios(weights_rN: Floats, sums: PointSums, below_rN: Floats | None = None) -> Floats:
    """[r, M] percent: the metrics with the points weighted, their denominators by `below_rN` if that is given."""
    above = weights_rN @ sums.numerator
    below = (weights_rN if below_rN is None else below_rN) @ sums.denominator
    return np.asarray(100.0 * np.divide(above, below, out=np.zeros_like(above), where=below != 0))


def _draws(points: int, resamples: int, seed: int) -> Iterator[Floats]:
    """[r, N]: how often each point is drawn when as many are drawn as there are."""

    def draw(rng: np.random.Generator, r: int) -> Floats:
        drawn = rng.integers(points, size=(r, points)) + np.arange(r)[:, None] * points
        return np.bincount(drawn.ravel(), minlength=r * points).reshape(r, points).astype(np.float64)

    return _in_parts(draw, points, resamples, seed)


def _signs(points: int, resamples: int, seed: int) -> Iterator[Floats]:
    """[r, N] of 1 and -1."""

    def draw(rng: np.random.Generator, r: int) -> Floats:
        return 2.0 * rng.integers(2, size=(r, points), dtype=np.int8).astype(np.float64) - 1.0

    return _in_parts(draw, points, resamples, seed)


def _in_parts(
    draw: Callable[[np.random.Generator, int], Floats], points: int, resamples: int, seed: int
) -> Iterator[Floats]:
    rng, size = np.random.default_rng(seed), max(1, _CELLS // points)
    return (draw(rng, min(size, resamples - start)) for start in range(0, resamples, size))


def _central(drawn_RM: Floats, level: float) -> Floats:
    """[2, M]: lower and upper ends of the central `level`."""
    return np.asarray(np.quantile(drawn_RM, [(1 - level) / 2, (1 + level) / 2], axis=0), dtype=np.float64)


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise TopkError(f"resamples={resamples}, level={level}: at least 1 resample and a level between 0 and 1")
