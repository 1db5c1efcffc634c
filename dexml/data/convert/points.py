"""Labels and points of a stream while it is read: texts go to a file, 8 bytes a label and a cell stay in memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.convert.records import LabelText, Record, Unreadable, encoded, fold, split_named
from dexml.data.relevance import NO_RELEVANCE

CODES = ("trn", "tst", "dev")


class Labels:
    """Label names and their numbers: those with a label text first, in their order, then the others by name."""

    def __init__(self, texts: BinaryIO, names: BinaryIO, closed: bool) -> None:
        self.texts, self.names, self.closed = texts, names, closed
        self.ids: dict[str, int] = {}
        self.named = False
        """Does any label have a name that is neither its text nor its number?"""

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, label: LabelText) -> None:
        name = fold(label.name)
        text = fold(label.text) or name
        if not name or name in self.ids:
            raise Unreadable(f"label {name!r} is there already: give every label one line" if name else "no label name")
        line, key = encoded(text), encoded(name)
        self.ids[name] = len(self.ids)
        self.texts.write(line + b"\n")
        self.names.write(key + b"\n")
        self.named |= name not in (text, str(self.ids[name]))

    def numbers(self, names: Sequence[str]) -> list[int]:
        """One for each name, -1 for an empty one. Unreadable for an unknown one where labels are closed."""
        encoded("".join(names))
        return [self._number(name) for name in names]

    def _number(self, name: str) -> int:
        number = self.ids.get(name)
        if number is None:
            name = fold(name)
            number = self.ids.get(name) if name else -1
        if number is None:
            if self.closed:
                raise Unreadable(f"label {name!r} is not among the {len(self.ids):,} label texts")
            number = self.ids[name] = len(self.ids)
        return number

    def finish(self, known: int) -> NDArray[np.int64]:
        """Writes the labels from number `known` on, sorted; returns the final number of each number given so far."""
        names = list(self.ids)
        order = sorted(range(known, len(names)), key=names.__getitem__)
        for number in order:
            line = encoded(names[number]) + b"\n"
            self.texts.write(line)
            self.names.write(line)
        final = np.arange(len(names))
        final[order] = np.arange(known, len(names))
        return final


class Cells:
    """A growing CSR matrix."""

    def __init__(self) -> None:
        self.ends, self.columns, self.values = array("q", [0]), array("q"), array("f")

    def add(self, row: dict[int, float]) -> None:
        self.columns.extend(row)
        self.values.extend(row.values())
        self.ends.append(len(self.columns))

    def matrix(self, final: NDArray[np.int64]) -> sparse.csr_matrix:
        """float32 [N, labels] with column c moved to final[c]."""
        columns = final[np.frombuffer(self.columns, np.int64)]
        values = np.frombuffer(self.values, np.float32)
        ends = np.frombuffer(self.ends, np.int64)
        matrix = sparse.csr_matrix((values, columns, ends), shape=(len(ends) - 1, len(final)))
        matrix.sort_indices()
        return matrix


class Points:
    """What a stream of records leaves behind: lines in `texts`, cells, splits and groups in memory."""

    def __init__(self, texts: BinaryIO, labels: Labels) -> None:
        self.texts, self.labels = texts, labels
        self.relevance, self.filters = Cells(), Cells()
        self.splits, self.groups = array("b"), array("q")
        self._group_ids: dict[str, int] = {}

    def add(self, record: Record) -> None:
        """All of the record, or Unreadable and nothing of it."""
        line, split = encoded(fold(record.text)), CODES.index(split_named(record.split))
        values = record.relevance or [1.0] * len(record.labels)
        row: dict[int, float] = {}
        for number, value in zip(self.labels.numbers(record.labels), values, strict=True):
            if number >= 0 and value > NO_RELEVANCE:
                row[number] = max(value, row.get(number, 0.0))
        hidden = {number: 1.0 for number in self.labels.numbers(record.filtered) if number >= 0}
        self.texts.write(line + b"\n")
        self.relevance.add(row)
        self.filters.add(hidden)
        self.splits.append(split)
        self.groups.append(self._group(record.group))

    def _group(self, name: str) -> int:
        return self._group_ids.setdefault(name, len(self._group_ids)) if name else -1
