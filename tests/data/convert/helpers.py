"""Hostile records, and what a data folder holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from dexml.data import Dataset
from dexml.data.convert.records import fold

HOSTILE = "\t\"',;|\\\n\r\x85\u2028\u2029\x0b\x0c\x1c\x00\ufeff\u00a0\u202e\u05d0\U0001f600[]{}NA07 ab"
texts = st.text(st.one_of(st.sampled_from(HOSTILE), st.characters(exclude_categories=["Cs"])), max_size=30)
records = st.lists(st.tuples(texts, st.lists(texts, max_size=4)), min_size=2, max_size=8)

Point = tuple[str, frozenset[str]]


def in_one_order(points: Iterable[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point[0], sorted(point[1])))


def expected(points: list[tuple[str, list[str]]]) -> list[Point]:
    """Sorted points as a data folder tells them: one line a text, empty labels and repeats gone."""
    return in_one_order((fold(text), frozenset(filter(None, map(fold, labels)))) for text, labels in points)


def stored(folder: Path, splits: tuple[str, ...] = ("trn", "tst")) -> list[Point]:
    """The points of these splits of a data folder, with the texts of their labels, sorted."""
    return in_one_order(point for split in splits for point in in_order(folder, split))


def in_order(folder: Path, split: str) -> list[Point]:
    data = Dataset.load(folder)
    part = data.splits[split]
    names = list(data.label_texts)
    rows = (part.relevance[row].indices.tolist() for row in range(len(part)))
    return [(text, frozenset(names[i] for i in row)) for text, row in zip(part.texts, rows, strict=True)]


def labels_of(folder: Path) -> list[str]:
    return list(Dataset.load(folder).label_texts)
