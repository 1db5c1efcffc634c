"""What is evaluated and how it is measured: the same for any split, head and number of processes.

N points of the split, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.data.batching import Ints
from dexml.data.tokens import Tokens
from dexml.evaluation.calibration import Calibration
from dexml.evaluation.f1 import count_above, count_first
from dexml.evaluation.metrics import compute_metrics, coverage, recall_depths, upper_bounds
from dexml.evaluation.propensity import inverse_propensity
from dexml.evaluation.retrieval import Predictions


@dataclass(frozen=True)
class EvalSet:
    """The points to evaluate: rows of a token store with their truth."""

    name: str
    tokens: Tokens
    rows: Ints
    relevance: csr_matrix
    """[N, L] of these rows"""
    filters: csr_matrix | None

    @classmethod
    def of(cls, name: str, split: Any, tokens: Tokens, rows: Ints | None = None) -> EvalSet:
        """All points of a `Split`, or some rows of it."""
        rows = np.arange(len(split)) if rows is None else rows
        filters = None if split.filters is None else split.filters[rows]
        return cls(name, tokens, rows, split.relevance[rows], filters)


@dataclass(frozen=True)
class Scale:
    """What the propensity model needs from the training data."""

    label_counts: NDArray[np.int64]
    """[L] training points of each label"""
    n_points: int
    A: float
    B: float

    @property
    def inverse_propensity(self) -> NDArray[np.float64]:
        return inverse_propensity(self.label_counts, self.n_points, self.A, self.B)


def measure(
    points: EvalSet, predictions: Predictions, k: int, scale: Scale | None, ks: tuple[int, ...] = (1, 3, 5)
) -> dict[str, Any]:
    """All metrics that k predictions allow, in percent, and the facts they rest on; no PSP without `scale`."""
    ks = tuple(sorted({j for j in ks if j <= k}))
    found = compute_metrics(
        predictions.ids,
        points.relevance,
        ks=ks,
        inv_propensity=None if scale is None else scale.inverse_propensity,
        recall_ks=recall_depths(k),
        mrr_k=min(10, k),
    )
    return {**found, **facts(points, scale, k)}


def measure_fully(
    points: EvalSet, predictions: Predictions, scale: Scale | None, calibration: Calibration | None = None
) -> dict[str, float]:
    """What `measure` leaves out: every metric at 1 to 5, Hit, PSR, Coverage, the best possible P and R, and F1.

    F1 is that of the first 1, 3 and 5 labels and, with a calibration, of those with a probability above one half.
    """
    depth = min(5, predictions.ids.shape[1])
    ks = tuple(range(1, depth + 1))
    some = tuple(k for k in (1, 3, 5) if k <= depth)
    weights = None if scale is None else scale.inverse_propensity
    extras = ("Hit",) if scale is None else ("Hit", "PSR")
    found = compute_metrics(
        predictions.ids, points.relevance, ks=ks, inv_propensity=weights, recall_ks=(), mrr_k=depth, extras=extras
    )
    found |= coverage(predictions.ids, points.relevance, some)
    found |= {f"best {name}": value for name, value in upper_bounds(points.relevance, some).items()}
    for k in some:
        counts = count_first(predictions.ids, points.relevance, k)
        found |= {f"{name}@{k}": value for name, value in counts.metrics().items() if name.endswith("F1")}
    if calibration is not None:
        likely = calibration.probability(predictions.scores)
        found |= count_above(predictions.ids, likely, points.relevance, 0.5).metrics(test_labels=True)
    return found


def facts(points: EvalSet, scale: Scale | None, k: int) -> Mapping[str, Any]:
    per_point = np.diff(points.relevance.indptr)
    return {
        "n_docs": len(points.rows),
        "n_empty": int((per_point == 0).sum()),
        "n_labels": int(points.relevance.shape[1]),
        **({} if scale is None else _training_facts(points, scale)),
        "k_stored": k,
        "ties_rule": "smaller label id first",
        "label_space": "train+test",
        "filter_pairs": 0 if points.filters is None else int(points.filters.nnz),
    }


def _training_facts(points: EvalSet, scale: Scale) -> dict[str, Any]:
    unseen = scale.label_counts[points.relevance.indices] == 0
    counted = {"n_unseen_test_positives": int(unseen.sum()), "N_train": scale.n_points}
    return {**counted, "A": scale.A, "B": scale.B}
