"""Predictions as JSON lines: one object a point, with the texts of its labels.

{"id": 7, "text": "...", "labels": [{"id": 3, "text": "...", "score": 0.81, "probability": 0.64}, ...], "truth": [3, 9]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.data.files import atomic_write
from dexml.evaluation.retrieval import Predictions

DIGITS = 6
Probability = Callable[[NDArray[np.floating]], NDArray[np.floating]]


def prediction_lines(
    texts: Sequence[str],
    rows: Sequence[int],
    predictions: Predictions,
    label_texts: Sequence[str],
    probability: Probability | None = None,
    truth: csr_matrix | None = None,
    threshold: float | None = None,
    most: int | None = None,
) -> Iterator[str]:
    """The line of each list, made when it is asked for.

    Args:
        rows: [N] which of `texts` the lists belong to; they become the ids.
        probability: turns the scores of a list into probabilities, told beside them.
        truth: [N, L] true labels, told by id.
        threshold: leaves out labels whose probability is not above it.
        most: labels told of each list; all by default.
    """
    lists = found_labels(predictions, label_texts, probability, threshold, most)
    for place, (row, found) in enumerate(zip(rows, lists, strict=True)):
        line = {"id": int(row), "text": texts[row], "labels": found}
        if truth is not None:
            line["truth"] = truth.indices[truth.indptr[place] : truth.indptr[place + 1]].tolist()
        yield json.dumps(line, ensure_ascii=False)


def found_labels(
    predictions: Predictions,
    label_texts: Sequence[str],
    probability: Probability | None = None,
    threshold: float | None = None,
    most: int | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """The labels of each list: id, text, score, probability. Arguments as of `prediction_lines`."""
    for ids, scores in zip(predictions.ids, predictions.scores, strict=True):
        kept = ids >= 0
        kept[len(kept) if most is None else most :] = False
        labels = {"id": ids, "score": scores}
        if probability is not None:
            labels["probability"] = probability(scores)
            kept &= labels["probability"] > (-1.0 if threshold is None else threshold)
        columns = {name: column[kept].tolist() for name, column in labels.items()}
        found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        yield [_readable(label, label_texts) for label in found]


def _readable(label: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    numbers = {name: round(value, DIGITS) for name, value in label.items() if name != "id"}
    return {"id": label["id"], "text": texts[label["id"]], **numbers}


def write_lines(path: Path, lines: Iterator[str]) -> None:
    """Writes the lines as they come; the file appears when all are there."""
    with atomic_write(path) as file:
        for line in lines:
            file.write(line.encode() + b"\n")
