"""Training texts near a query: what a model learnt from, to show beside what it answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.data.dataset import Dataset
from dexml.data.files import DataError, sha256
from dexml.data.textfile import Lines
from dexml.encoders.encoder import Encoder
from dexml.index import LabelIndex, LabelIndexError

log = logging.getLogger(__name__)
CACHE = "training_texts"
SLICE = 4096  # texts between two lines of the log
SHOWN = 12  # labels told of a text


@dataclass(frozen=True)
class TrainingTexts:
    """M texts with an index over their embeddings and, from a data folder, their labels."""

    texts: Lines
    index: LabelIndex
    relevance: csr_matrix | None = None
    label_texts: Sequence[str] = ()

    @classmethod
    def load(cls, source: Path, encoder: Encoder, folder: Path) -> TrainingTexts:
        """The training texts of a data folder, or the lines of a file, embedded once and kept in the bundle's folder.

        Raises:
            DataError: no such folder or file, or one that cannot be read.
        """
        data = Dataset.load(source, ("trn",)) if source.is_dir() else None
        texts = Lines(source) if data is None else data.trn.texts
        if not len(texts):
            raise DataError(f"{texts.path} has no lines")
        made_of = {"texts": sha256(texts.path), "encoder": [sha256(f) for f in sorted(folder.glob("*.safetensors"))]}
        index = _kept(folder / CACHE, made_of) or _embed(texts, encoder, made_of, folder / CACHE)
        return cls(texts, index) if data is None else cls(texts, index, data.trn.relevance, data.label_texts)

    def nearest(self, query_ND: NDArray[np.float32], k: int) -> list[list[dict[str, Any]]]:
        """The k nearest texts of each query, best first: text, similarity, labels."""
        ids, scores = self.index.search(query_ND, min(k, len(self.index)))
        return [
            [self._readable(int(row), float(score)) for row, score in zip(*found, strict=True) if row >= 0]
            for found in zip(ids, scores, strict=True)
        ]

    def examples(self, n: int) -> list[str]:
        """n texts evenly spaced."""
        rows = np.linspace(0, len(self.texts) - 1, min(n, len(self.texts))).astype(int)
        return self.texts.read(rows)

    def _readable(self, row: int, score: float) -> dict[str, Any]:
        held = [] if self.relevance is None else self.relevance[row].indices.tolist()
        labels = [self.label_texts[i] for i in held[:SHOWN]]
        return {"text": self.texts[row], "similarity": round(score, 6), "labels": labels}


def _kept(cache: Path, made_of: dict[str, Any]) -> LabelIndex | None:
    try:
        index = LabelIndex.load(cache)
    except (LabelIndexError, OSError):
        return None
    return index if index.meta == made_of else None


def _embed(texts: Lines, encoder: Encoder, made_of: dict[str, Any], cache: Path) -> LabelIndex:
    parts = []
    for begin in range(0, len(texts), SLICE):
        log.info("embedding %s training texts, once: %s done", f"{len(texts):,}", f"{begin:,}")
        parts.append(encoder.encode(texts[begin : begin + SLICE]))
    index = LabelIndex.build(np.concatenate(parts), meta=made_of)
    try:
        index.save(cache)
    except (LabelIndexError, OSError) as error:
        log.warning("%s: the embeddings cannot be kept there (%s), the next start makes them again", cache, error)
    return index
