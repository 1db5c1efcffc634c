"""Scores read as probabilities: how well they are calibrated, and a temperature and a shift that make them so.

Fitted on validation points, on the labels that their lists hold: `probability` is that of a label that was found being
true, and says nothing of labels that were not found.

Sources: Platt, "Probabilistic outputs for support vector machines" (1999), with smoothed targets; Lin, Lin and Weng
(2007), Newton's method with backtracking for it; Guo et al. (arXiv 1706.04599), expected calibration error.

Legend: N points, K places, C candidates (labels in lists), B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats
from dexml.evaluation.metrics import Inputs
from dexml.evaluation.topk import Csr, Ids, Mask, blocks, contains

_BLOCK = 8192  # points at a time
_STEPS = 100
_CONVERGED = 1e-10  # gradient a candidate


class CalibrationError(ValueError):
    """Scores from which no probabilities can be made."""


# ---- how well -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """Candidates by what was promised for them; bins without any are left out."""

    confidence: Floats
    """[B] mean probability"""
    accuracy: Floats
    """[B] share of hits"""
    count: Ids
    """[B] candidates"""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of accuracy and confidence, weighted by the counts."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))


def reliability(probabilities: npt.ArrayLike, hits: npt.ArrayLike, bins: int = 15) -> Reliability:
    """The reliability curve of probabilities, each with whether its label is true, over bins of equal width.

    Raises:
        CalibrationError: no candidates, or numbers that are no probabilities.
    """
    p_C, hit_C = _pairs(probabilities, hits)
    if bins < 1 or p_C.min() < 0 or p_C.max() > 1:
        raise CalibrationError(
            f"bins={bins}, probabilities {p_C.min():g} to {p_C.max():g}: at least 1 bin, all in 0..1"
        )
    bin_C = np.minimum((p_C * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_C, minlength=bins)
    some = count > 0
    confidence, accuracy = (np.bincount(bin_C, values, bins)[some] / count[some] for values in (p_C, hit_C))
    return Reliability(confidence, accuracy, count[some])


def candidates(topk_ids: npt.ArrayLike, scores: npt.ArrayLike, relevance_csr: Csr) -> tuple[Floats, Mask]:
    """The score of every label [C] that the lists [N, K] hold, and whether it is true."""
    inputs, scores_NK = Inputs.of(topk_ids, relevance_csr, ()), np.asarray(scores)
    if scores_NK.shape != inputs.ids_NK.shape:
        raise CalibrationError(f"scores have shape {scores_NK.shape}, ids {inputs.ids_NK.shape}")
    hit_NK = [contains(inputs.truth, rows, inputs.ids_NK[rows]) for rows in blocks(len(inputs.ids_NK), _BLOCK)]
    real_NK = inputs.ids_NK >= 0
    return scores_NK[real_NK].astype(np.float64), np.concatenate(hit_NK)[real_NK]


# ---- a temperature and a shift --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """probability = 1 / (1 + exp(-(score - shift) / temperature)): it keeps every ranking as it is."""

    temperature: float
    shift: float
    """the score of an even chance"""

    def __post_init__(self) -> None:
        if not (np.isfinite([self.temperature, self.shift]).all() and self.temperature > 0):
            raise CalibrationError(f"temperature {self.temperature} must be above 0, and shift {self.shift} a number")

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """float64 of any shape; 0 for the score -inf of padding."""
        return _sigmoid((np.asarray(scores, dtype=np.float64) - self.shift) / self.temperature)

    def score(self, probability: float) -> float:
        """The score that has this probability: where to cut lists."""
        if not 0 < probability < 1:
            raise CalibrationError(f"probability {probability}: between 0 and 1 is needed")
        return float(self.shift + self.temperature * np.log(probability / (1 - probability)))

    @classmethod
    def fit(cls, scores: npt.ArrayLike, hits: npt.ArrayLike) -> Calibration:
        """The most likely one, given scores [C] and whether each label is true (see `candidates`).

        Raises:
            CalibrationError: no candidates, all true, none true, equal scores, or higher scores are true less often.
        """
        score_C, hit_C = _pairs(scores, hits)
        if hit_C.min() == hit_C.max():
            raise CalibrationError(
                f"{'all' if hit_C.all() else 'none'} of the {len(hit_C)} labels found are true: calibrate on other "
                "points, with lists deep enough to hold right and wrong labels"
            )
        centre, spread = score_C.mean(), score_C.std()
        if spread <= 1e-12 * max(1.0, abs(centre)):
            raise CalibrationError(f"all scores are {centre:g}: they tell right labels from wrong ones in no way")
        slope, offset = _newton((score_C - centre) / spread, _smoothed(hit_C))
        if slope <= 0:
            raise CalibrationError("labels with higher scores are true less often: are scores and truth of one split?")
        return cls(float(spread / slope), float(centre - spread * offset / slope))

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`; CalibrationError for anything else."""
        numbers = {key: value for key, value in values.items() if type(value) in (int, float)}
        if numbers.keys() != values.keys() or set(numbers) != {"temperature", "shift"}:
            raise CalibrationError(f"a calibration is the two numbers temperature and shift, not {dict(values)}")
        return cls(**{key: float(value) for key, value in numbers.items()})


def _newton(z_C: Floats, target_C: Floats) -> tuple[float, float]:
    """(slope, offset) of the least log loss of sigmoid(slope z + offset) against the targets."""
    columns_2C = np.stack([z_C, np.ones_like(z_C)])
    share = target_C.mean()
    at = np.array([0.0, np.log(share / (1 - share))])  # the best without a slope
    loss = _log_loss(at @ columns_2C, target_C)
    for _ in range(_STEPS):
        p_C = _sigmoid(at @ columns_2C)
        gradient = columns_2C @ (p_C - target_C)
        if np.abs(gradient).max() <= _CONVERGED * len(z_C):
            break
        hessian = (columns_2C * (p_C * (1 - p_C))) @ columns_2C.T + 1e-12 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (tried := _log_loss((at - size * step) @ columns_2C, target_C)) > loss and size > 1e-10:
            size /= 2
        at, loss = at - size * step, tried
    return float(at[0]), float(at[1])


def _smoothed(hit_C: Floats) -> Floats:
    """Platt's targets: so far from 0 and 1 that separable scores have a finite temperature too."""
    true = hit_C.sum()
    return np.where(hit_C > 0, (true + 1) / (true + 2), 1 / (len(hit_C) - true + 2))


def _log_loss(logit_C: Floats, target_C: Floats) -> float:
    soft = np.log1p(np.exp(-np.abs(logit_C)))  # several times faster than logaddexp
    return float(soft.sum() + np.maximum(logit_C, 0).sum() - target_C @ logit_C)


def _sigmoid(logits: Floats) -> Floats:
    """Without overflow at either end."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), dtype=np.float64)


def _pairs(values: npt.ArrayLike, hits: npt.ArrayLike) -> tuple[Floats, Floats]:
    value_C, hit_C = (np.asarray(given, dtype=np.float64).ravel() for given in (values, hits))
    if value_C.shape != hit_C.shape or not len(value_C):
        raise CalibrationError(f"{len(value_C)} values and {len(hit_C)} hits: one of each for every label found")
    if not np.isfinite(value_C).all() or not np.isin(hit_C, (0, 1)).all():
        raise CalibrationError("values must be finite and hits 0 or 1: leave the padding of lists out (see candidates)")
    return value_C, hit_C
