"""Predictions as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dexml.evaluation.calibration import Calibration
from dexml.evaluation.export import prediction_lines, write_lines
from dexml.evaluation.retrieval import Predictions

TEXTS = ["one", "zwei \u2028 \u00e9", 'three "3"']
LABELS = ["red", "gr\u00fcn", "blue"]
LISTS = Predictions(np.array([[2, 0], [1, -1]]), np.array([[0.75, 0.123456789], [0.5, -np.inf]], np.float32))
TRUTH = csr_matrix([[1, 0, 1], [0, 0, 0]])


def test_a_line_holds_text_labels_and_truth_of_its_point(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_lines(path, prediction_lines(TEXTS, [2, 1], LISTS, LABELS, truth=TRUTH))
    first, second = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1])
    blue, red = {"id": 2, "text": "blue", "score": 0.75}, {"id": 0, "text": "red", "score": 0.123457}
    assert first == {"id": 2, "text": 'three "3"', "labels": [blue, red], "truth": [0, 2]}
    assert second == {"id": 1, "text": TEXTS[1], "labels": [{"id": 1, "text": "gr\u00fcn", "score": 0.5}], "truth": []}


def test_probabilities_stand_beside_scores_and_cut_the_list() -> None:
    calibration = Calibration(temperature=0.1, shift=0.5)
    first, second = prediction_lines(TEXTS, [0, 1], LISTS, LABELS, calibration.probability, threshold=0.5)
    found = json.loads(first)["labels"]
    assert [label["id"] for label in found] == [2]
    assert found[0]["probability"] == pytest.approx(1 / (1 + np.exp(-2.5)), abs=1e-6)
    assert json.loads(second)["labels"] == [], "a probability of exactly the threshold is not above it"
    assert "truth" not in json.loads(first)


def test_the_first_labels_alone_are_told_where_so_many_are_asked_for() -> None:
    first, second = prediction_lines(TEXTS, [0, 1], LISTS, LABELS, most=1)
    assert [[label["id"] for label in json.loads(line)["labels"]] for line in (first, second)] == [[2], [1]]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def lines() -> Iterator[str]:
        yield "{}"
        raise RuntimeError

    path = tmp_path / "predictions.jsonl"
    path.write_text("before\n")
    with pytest.raises(RuntimeError):
        write_lines(path, lines())
    assert path.read_text() == "before\n" and len(list(tmp_path.iterdir())) == 1
