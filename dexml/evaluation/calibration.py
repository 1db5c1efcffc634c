"""Scores read as probabilities: how well they are calibrated, and what makes them so.

Fitted on validation points, on the labels that their lists hold: `probability` is that of a label that was found being
true, and says nothing of labels that were not found. Losses that compare labels make a score mean something only beside
the scores of the same point: 0.6 is much where the next label has 0.4, and little where ten have 0.7. So a list counts
as a whole, by the level of its best scores.

Sources: Platt, "Probabilistic outputs for support vector machines" (1999), with smoothed targets; Lin, Lin and Weng
(2007), Newton's method with backtracking for it; Guo et al. (arXiv 1706.04599), expected calibration error.

Legend: N points, K places, C candidates (labels in lists), B bins, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats
from dexml.evaluation.metrics import Inputs
from dexml.evaluation.topk import Csr, Ids, Mask, blocks, contains

RIVALS = 20
"""places of a list that its level is made of, and that the fit looks at"""
_SCALES = (0.25, 0.5, 1.0, 2.0)  # tried for `rival_scale`, times the spread of the scores
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
    """The scores of lists [N, K], -inf where there is padding, and whether the label of each is true."""
    inputs, scores_NK = Inputs.of(topk_ids, relevance_csr, ()), np.asarray(scores)
    if scores_NK.shape != inputs.ids_NK.shape:
        raise CalibrationError(f"scores have shape {scores_NK.shape}, ids {inputs.ids_NK.shape}")
    hit_NK = [contains(inputs.truth, rows, inputs.ids_NK[rows]) for rows in blocks(len(inputs.ids_NK), _BLOCK)]
    return np.where(inputs.ids_NK >= 0, scores_NK, -np.inf).astype(np.float64), np.concatenate(hit_NK)


# ---- what makes them so ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid((score - rivalry * level - shift) / temperature): it keeps the order of every list.

    The level of a list is rival_scale * log(sum(exp(score / rival_scale))) over its first `RIVALS` places.
    """

    temperature: float
    shift: float
    rivalry: float = 0.0
    """0: a score means the same in every list; 1: only what it is above the others counts"""
    rival_scale: float = 1.0
    """small: the best score is the level; large: all count alike"""

    def __post_init__(self) -> None:
        numbers = [self.temperature, self.shift, self.rivalry, self.rival_scale]
        if not (np.isfinite(numbers).all() and self.temperature > 0 and self.rival_scale > 0):
            raise CalibrationError(f"temperature and rival_scale must be above 0, all four numbers: {numbers}")

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """float64 of whole lists [..., K], best first, 0 for the score -inf of padding.

        Lists have the length they were fitted on, or `RIVALS` places at least: shorter ones have a lower level.
        """
        lists = np.asarray(scores, dtype=np.float64)
        return _sigmoid((lists - self.rivalry * _level(lists, self.rival_scale) - self.shift) / self.temperature)

    @classmethod
    def fit(cls, scores: npt.ArrayLike, hits: npt.ArrayLike) -> Calibration:
        """The most likely one, given lists of scores [N, K], best first, and whether each label is true (`candidates`).

        Raises:
            CalibrationError: no candidates, all true, none true, equal scores, or higher scores are true less often.
        """
        lists, hit_NK = np.asarray(scores, dtype=np.float64), np.asarray(hits)
        if lists.ndim != 2 or lists.shape != hit_NK.shape:
            raise CalibrationError(
                f"scores {lists.shape} and hits {hit_NK.shape}: one of each a place of a list [N, K]"
            )
        real = np.isfinite(lists[:, :RIVALS]) | np.isnan(lists[:, :RIVALS])
        score_C, hit_C = _pairs(lists[:, :RIVALS][real], hit_NK[:, :RIVALS][real])
        _check_fit(score_C, hit_C)
        targets, tried = _smoothed(hit_C), []
        for scale in np.array(_SCALES) * score_C.std():
            level_C = np.broadcast_to(_level(lists, scale), lists[:, :RIVALS].shape)[real]
            tried.append((*_newton(np.stack([score_C, level_C]), targets), float(scale)))
        _, (slope, against, offset), scale = min(tried, key=lambda fit: fit[0])
        if slope <= 0:
            raise CalibrationError("labels with higher scores are true less often: are scores and truth of one split?")
        return cls(1 / slope, -offset / slope, -against / slope, scale)

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`; CalibrationError for anything else."""
        numbers = {key: value for key, value in values.items() if type(value) in (int, float)}
        wanted = {field.name for field in fields(cls)}
        if numbers.keys() != values.keys() or set(numbers) != wanted:
            raise CalibrationError(f"a calibration is the numbers {', '.join(sorted(wanted))}, not {dict(values)}")
        return cls(**{key: float(value) for key, value in numbers.items()})


def _level(lists: Floats, scale: float) -> Floats:
    """[..., 1] of lists [..., K], best first; 0 for a list of padding alone."""
    best = np.where(np.isfinite(lists[..., :1]), lists[..., :1], 0.0)
    some = np.exp((lists[..., :RIVALS] - best) / scale).sum(axis=-1, keepdims=True)
    return np.asarray(best + scale * np.log(np.maximum(some, 1.0)))  # the best alone makes 1


def _newton(features_FC: Floats, target_C: Floats) -> tuple[float, list[float]]:
    """The least log loss of sigmoid(weights . features + offset) against the targets, and [*weights, offset]."""
    centre_F, spread_F = features_FC.mean(axis=1), features_FC.std(axis=1)
    spread_F = np.where(spread_F > 1e-12 * np.maximum(1.0, np.abs(centre_F)), spread_F, np.inf)  # constant: weight 0
    columns = np.vstack([(features_FC - centre_F[:, None]) / spread_F[:, None], np.ones_like(target_C)])
    share = target_C.mean()
    at = np.array([0.0] * len(features_FC) + [np.log(share / (1 - share))])  # the best without features
    loss = _log_loss(at @ columns, target_C)
    for _ in range(_STEPS):
        p_C = _sigmoid(at @ columns)
        gradient = columns @ (p_C - target_C)
        if np.abs(gradient).max() <= _CONVERGED * len(target_C):
            break
        hessian = (columns * (p_C * (1 - p_C))) @ columns.T + 1e-12 * len(target_C) * np.eye(len(columns))
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while (tried := _log_loss((at - size * step) @ columns, target_C)) > loss and size > 1e-10:
            size /= 2
        at, loss = at - size * step, tried
    weights = at[:-1] / spread_F
    return loss, [*weights.tolist(), float(at[-1] - weights @ centre_F)]


def _check_fit(score_C: Floats, hit_C: Floats) -> None:
    if hit_C.min() == hit_C.max():
        raise CalibrationError(
            f"{'all' if hit_C.all() else 'none'} of the {len(hit_C)} labels found are true: calibrate on other "
            "points, with lists deep enough to hold right and wrong labels"
        )
    if score_C.std() <= 1e-12 * max(1.0, abs(score_C.mean())):
        raise CalibrationError(f"all scores are {score_C[0]:g}: they tell right labels from wrong ones in no way")


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
