"""A model as the service sees it: questions in, readable answers out. Everything here runs in the computing thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexml.evaluation.calibration import RIVALS
from dexml.hub.labelset import LabelSet
from dexml.serve.texts import TrainingTexts

DIGITS = 6
EXAMPLES = 4


@dataclass(frozen=True)
class Query:
    """A text with what is wanted for it."""

    text: str
    k: int
    threshold: float | None = None
    """only labels with a probability above it"""
    neighbours: int = 0
    """training texts wanted"""


class Served:
    """A bundle under a name.

    Every search fetches the same number of labels, and a query takes as many as it wants: so an answer does not
    depend on what others ask at the same moment, whatever the kind of index.
    """

    def __init__(self, name: str, labels: LabelSet, most: int, texts: TrainingTexts | None = None) -> None:
        """`most` labels can be asked for."""
        self.name, self.labels, self.texts = name, labels, texts
        self.depth = max(most, RIVALS)
        self.examples = [] if texts is None else texts.examples(EXAMPLES)

    @classmethod
    def load(cls, source: str, name: str, most: int, texts: Path | None = None, amp: bool = False) -> Served:
        """Reads a bundle with its label changes; arguments and errors as of `Bundle.load`."""
        labels = LabelSet.load(source, amp=amp)
        assert labels.path is not None  # it was loaded
        near = None if texts is None else TrainingTexts.load(texts, labels.bundle.encoder, labels.path.parent)
        served = cls(name, labels, most, near)
        served.answer([Query("warm up", k=1)])  # what is built at first use, before the first request
        return served

    @property
    def calibrated(self) -> bool:
        """Whether it tells probabilities."""
        return self.labels.bundle.calibration is not None

    @property
    def changeable(self) -> bool:
        """Whether labels can be added and removed."""
        return self.labels.bundle.index is not None and self.labels.bundle.labels_are_texts

    def answer(self, queries: Sequence[Query]) -> list[dict[str, Any]]:
        """For each query `labels`, best first, and `neighbours`, as JSON has them."""
        ids_NK, scores_NK = self._search([query.text for query in queries])
        columns = {"score": scores_NK}
        if self.calibrated:
            columns["probability"] = self.labels.bundle.probability(scores_NK).astype(np.float32)
        near = self._near(queries)
        return [
            {"labels": self._readable(query, ids_NK[i], {name: rows[i] for name, rows in columns.items()})} | near[i]
            for i, query in enumerate(queries)
        ]

    def _search(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if not len(self.labels):
            return np.empty((len(texts), 0), np.int64), np.empty((len(texts), 0), np.float32)
        return self.labels.bundle.search(texts, self.depth)

    def _readable(self, query: Query, ids_K: NDArray[np.int64], columns: dict[str, Any]) -> list[dict[str, Any]]:
        keep = ids_K >= 0
        keep[query.k :] = False
        if query.threshold is not None:
            keep &= columns["probability"] > query.threshold
        texts, ids = self.labels.bundle.labels, ids_K[keep].tolist()
        rows = zip(*(values[keep].tolist() for values in columns.values()), strict=True)
        return [
            {"id": label, "text": texts[label]}
            | {name: round(value, DIGITS) for name, value in zip(columns, row, strict=True)}
            for label, row in zip(ids, rows, strict=True)
        ]

    def _near(self, queries: Sequence[Query]) -> list[dict[str, Any]]:
        """{"neighbours": ...} of the queries that want some, {} of the others."""
        found: list[dict[str, Any]] = [{} for _ in queries]
        wanting = [i for i, query in enumerate(queries) if query.neighbours]
        if self.texts is not None and wanting:
            vectors = self.labels.bundle.encoder.encode([queries[i].text for i in wanting])
            most = max(queries[i].neighbours for i in wanting)
            for i, texts in zip(wanting, self.texts.nearest(vectors, most), strict=True):
                found[i] = {"neighbours": texts[: queries[i].neighbours]}
        return found
