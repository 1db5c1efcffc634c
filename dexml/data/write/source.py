"""What every writer takes: a data folder in pieces, and names for its labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dexml.data.convert.records import fold
from dexml.data.dataset import Dataset
from dexml.data.textfile import Lines

BATCH = 4096  # points in memory
LINE_ENDS = str.maketrans({ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})


class Point(NamedTuple):
    row: int
    text: str
    labels: list[int]
    relevance: list[float]


@dataclass(frozen=True)
class WriteSource:
    dataset: Dataset
    texts: list[str]
    """[L] texts of the labels."""
    ids: list[str]
    """[L] raw/Y.ids.txt if it fits, else the numbers from 0; different from each other and without white space."""
    names: list[str]
    """[L] the texts if they differ from each other, else the ids."""

    @classmethod
    def open(cls, dataset: Dataset) -> WriteSource:
        texts = list(dataset.label_texts)
        ids = _stored_ids(dataset) or list(map(str, range(len(texts))))
        return cls(dataset, texts, ids, texts if _distinct([fold(text) for text in texts]) else ids)

    @property
    def graded(self) -> bool:
        """Whether any relevance is not 1."""
        return any((split.relevance.data != 1).any() for split in self.dataset.splits.values())

    def batches(self, name: str) -> Iterator[list[Point]]:
        """The points of a split in their order, under a progress bar."""
        from dexml.training.progress import bar

        split = self.dataset.splits[name]
        ends, columns, values = split.relevance.indptr, split.relevance.indices, split.relevance.data
        with bar(f"writing {name}", len(split)) as tick:
            for rows in split.texts.batches(BATCH):
                begins, past = ends[rows.start : rows.stop], ends[rows.start + 1 : rows.stop + 1]
                cells = map(slice, begins.tolist(), past.tolist())
                points = zip(rows, split.texts[rows.start : rows.stop], cells, strict=True)
                yield [Point(row, text, columns[at].tolist(), values[at].tolist()) for row, text, at in points]
                tick(len(rows))

    def points(self, name: str) -> Iterator[Point]:
        return (point for batch in self.batches(name) for point in batch)


def json_line(value: Any) -> str:
    """JSON on one line for every reader: no character in it that some of them end a line at."""
    return json.dumps(value, ensure_ascii=False).translate(LINE_ENDS)


def number(value: float) -> float | int:
    """Without a fraction where there is none."""
    return int(value) if value.is_integer() else value


def _stored_ids(dataset: Dataset) -> list[str] | None:
    path = dataset.path / "raw" / "Y.ids.txt"
    ids = list(Lines(path)) if path.is_file() else []
    fit = len(ids) == dataset.n_labels and _distinct(ids) and not any(len(name.split()) > 1 for name in ids)
    return ids if fit else None


def _distinct(names: list[str]) -> bool:
    return len(set(names)) == len(names) and all(names)
