"""What uncertainty is good for, measured: does it point at wrong labels, and at texts of another kind?

N texts, K labels of a text, k places judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dexml.evaluation.detection import DetectionError, auroc, average_precision
from dexml.evaluation.gains import Floats
from dexml.evaluation.metrics import compute_metrics
from dexml.evaluation.topk import Csr, Ids, blocks, canonical, contains
from dexml.evaluation.uncertainty import Uncertainty
from dexml.evaluation.uncertainty_texts import Readings

KS = (1, 3, 5)
BLOCK = 8192  # points at a time


def precision(readings: Readings, truth: Csr) -> dict[str, Any]:
    """P@1, P@3 and P@5, in percent, of every member and of the ensemble, which ranks by mean probability."""
    ks = [k for k in KS if k <= readings.best.shape[2]]

    def of(ids: Ids) -> dict[str, float]:
        found = compute_metrics(ids, truth, ks=ks, recall_ks=(), mrr_k=1)
        return {f"P@{k}": float(found[f"P@{k}"]) for k in ks}

    first = np.take_along_axis(readings.ids, readings.ranked()[:, : ks[-1]], axis=1)
    return {"members": [of(lists) for lists in readings.best], "ensemble": of(first)}


def wrong_labels(readings: Readings, truth: Csr) -> dict[str, Any]:
    """How well scores point at the wrong ones among the first k labels of the ensemble, pooled over texts, by k."""
    ranked, known = readings.ranked(), canonical(truth)
    found = {}
    for k in (k for k in KS if k <= ranked.shape[1]):
        ids, u = np.take_along_axis(readings.ids, ranked[:, :k], 1), _at(readings.of_labels, ranked[:, :k])
        first = np.take_along_axis(readings.first, ranked[:, :k], 1)
        hit = np.concatenate([contains(known, rows, ids[rows]) for rows in blocks(len(ids), BLOCK)])
        real = ids >= 0
        scores = {**_parts(u), "1 - mean p": 1 - u.mean, "1 - p of one member": 1 - first}
        judged = {name: judge(score[real], ~hit[real]) for name, score in scores.items()}
        found[str(k)] = {"items": int(real.sum()), "wrong": float((~hit[real]).mean()), "scores": judged}
    return found


def other_texts(inside: Readings, outside: Readings) -> dict[str, Any]:
    """How well scores of a text as a whole point at the texts that are not of the data."""
    pairs = [_of_texts(readings) for readings in (inside, outside)]
    positive = np.repeat([False, True], [len(inside.ids), len(outside.ids)])
    return {name: judge(np.concatenate([one[name] for one in pairs]), positive) for name in pairs[0]}


def judge(scores: Floats, positive: Any) -> dict[str, float]:
    """AUROC and average precision, empty where all items are of one kind."""
    try:
        return {"auroc": auroc(scores, positive), "ap": average_precision(scores, positive)}
    except DetectionError:
        return {}


def kept(readings: Readings, truth: Csr, steps: int = 50) -> dict[str, list[float]]:
    """P@1 in percent of the texts that remain if only a share of them, the least uncertain, is answered.

    Returns:
        `share` in percent, and by each score of the first label the precision at these shares.
    """
    first = readings.ranked()[:, :1]
    ids, u = np.take_along_axis(readings.ids, first, 1), _at(readings.of_labels, first)
    known = canonical(truth)
    hit = np.concatenate([contains(known, rows, ids[rows]) for rows in blocks(len(ids), BLOCK)])[:, 0]
    ends = np.unique(np.linspace(len(hit) / steps, len(hit), steps).round().astype(int).clip(1))
    found = {"share": (100 * ends / len(hit)).tolist()}
    for name, score in {**_parts(u), "1 - mean p": 1 - u.mean}.items():
        precise = np.cumsum(hit[np.argsort(score[:, 0], kind="stable")])[ends - 1] / ends
        found[name] = (100 * precise).tolist()
    return found


def summary(readings: Readings) -> dict[str, float]:
    """Means over the texts."""
    scores = _of_texts(readings)
    return {name: float(score.mean()) for name, score in scores.items()} | {
        "bound": float(readings.bound.mean()),
        "largest bound": float(readings.bound.max(initial=0)),
    }


def _of_texts(readings: Readings) -> Mapping[str, Floats]:
    u = readings.of_labels.of_texts()
    return {
        **_parts(u),
        "1 - max mean p": 1 - readings.of_labels.mean.max(axis=1),
        "labels found": readings.counts.astype(np.float64),
    }


def _parts(u: Uncertainty) -> dict[str, Floats]:
    return {"total": u.total, "data": u.data, "knowledge": u.knowledge}


def _at(u: Uncertainty, place: Ids) -> Uncertainty:
    return Uncertainty(*(np.take_along_axis(part, place, 1) for part in (u.mean, u.total, u.data)))
