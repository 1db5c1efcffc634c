"""What the hits of points add to each metric: one column of per-point values a metric.

A hit is a true label that stands in the list. There are at most as many as true labels, far fewer than places, so
nothing here is as large as the lists. The ideal list of a point is a set of hits too, and what it adds is the
denominator of the propensity-scored metrics.

Legend: n points of a block, H hits, L labels, k places counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dexml.evaluation.topk import Csr, Ids, find

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]


@dataclass(frozen=True)
class Hits:
    """The hits of a block, those on the first places first."""

    row: Ids
    """[H] within the block"""
    place: Ids
    """[H] from 0"""
    label: Ids
    """[H]"""
    true_n: Ids
    """[n] true labels of each point"""

    @classmethod
    def of(cls, truth: Csr, rows: slice, ids_nK: Ids) -> Hits:
        """The hits of lists that belong to `rows` of the truth."""
        return cls._by_place(*find(truth, rows, ids_nK), _true_n(truth, rows))

    @classmethod
    def ideal(cls, truth: Csr, rows: slice, weights: Floats, depth: int) -> Hits:
        """Those of the best lists: the true labels by descending weight [L], cut at `depth`."""
        true_n = _true_n(truth, rows)
        row = np.repeat(np.arange(len(true_n)), true_n)
        label = truth.indices[truth.indptr[rows.start] : truth.indptr[rows.stop]].astype(np.int64)
        by_weight = np.argsort(-weights[label])
        rank = np.empty(len(label), np.int64)
        rank[by_weight] = np.arange(len(label))
        key = np.sort(row * len(label) + rank)  # by row, then by weight: much faster than a lexsort
        place = np.arange(len(label)) - (true_n.cumsum() - true_n)[row]
        kept = place < depth
        return cls._by_place(row[kept], place[kept], label[by_weight[key[kept] % max(1, len(label))]], true_n)

    @classmethod
    def _by_place(cls, row: Ids, place: Ids, label: Ids, true_n: Ids) -> Hits:
        small = place.astype(np.min_scalar_type(int(place.max(initial=0))))  # sorted by radix
        order = np.argsort(small, kind="stable")
        return cls(row[order], place[order], label[order], true_n)

    def among(self, k: int) -> slice:
        """Those on the first k places."""
        return slice(int(np.searchsorted(self.place, k)))

    def summed(self, k: int, gains: Floats | None = None) -> Floats:
        """[n]: the gains [H], or the number, of each point's hits on its first k places."""
        some = self.among(k)
        return np.bincount(self.row[some], None if gains is None else gains[some], len(self.true_n)).astype(np.float64)

    def discounts(self) -> Floats:
        """[H]: what the place of each hit is worth in nDCG."""
        return _discounts(int(self.place.max(initial=0)) + 1)[self.place]

    def first(self) -> Floats:
        """[n]: the place of each point's first hit, infinite without one."""
        places = np.full(len(self.true_n), np.inf)
        places[self.row[::-1]] = self.place[::-1]  # the last one written stays
        return places


def mean_columns(
    hits: Hits, ks: Sequence[int], recall_ks: Sequence[int], mrr_ks: Sequence[int], extras: Collection[str] = ()
) -> Columns:
    """[n] for each metric that is a mean over points."""
    some_n = np.maximum(hits.true_n, 1)  # points without labels have no hits: 0 over anything
    discounts, ideal, first = hits.discounts(), _ideal_dcg(max(ks, default=0)), hits.first()
    columns: Columns = {}
    for k in ks:
        found, reachable = hits.summed(k), np.minimum(some_n, k)
        columns[f"P@{k}"] = found / k
        columns[f"nDCG@{k}"] = hits.summed(k, discounts) / ideal[reachable]
        columns[f"RP@{k}"] = found / reachable
        if "Hit" in extras:
            columns[f"Hit@{k}"] = (first < k).astype(np.float64)
    for k in dict.fromkeys((*ks, *recall_ks)):
        columns[f"R@{k}"] = hits.summed(k) / some_n
    for k in mrr_ks:
        columns[f"MRR@{k}"] = np.where(first < k, 1 / (first + 1), 0.0)
    return columns


def weighted_columns(hits: Hits, weights: Floats, ks: Sequence[int], extras: Collection[str] = ()) -> Columns:
    """[n] for each metric that weighs labels [L] and is a ratio of sums: of one side of it, that of these hits."""
    some_n = np.maximum(hits.true_n, 1)
    gains, ideal = weights[hits.label], _ideal_dcg(max(ks, default=0))
    discounted = gains * hits.discounts()
    columns: Columns = {}
    for k in ks:
        columns[f"PSP@{k}"] = hits.summed(k, gains)
        columns[f"PSnDCG@{k}"] = hits.summed(k, discounted) / ideal[np.minimum(some_n, k)]
        if "PSR" in extras:
            columns[f"PSR@{k}"] = columns[f"PSP@{k}"] / some_n
    return columns


def _true_n(truth: Csr, rows: slice) -> Ids:
    return np.diff(truth.indptr[rows.start : rows.stop + 1]).astype(np.int64)


def _discounts(depth: int) -> Floats:
    return np.asarray(1.0 / np.log2(np.arange(2, depth + 2)))


def _ideal_dcg(depth: int) -> Floats:
    """[depth + 1]: DCG of m true labels on top, m = 0..depth."""
    return np.concatenate([[0.0], _discounts(depth).cumsum()])
