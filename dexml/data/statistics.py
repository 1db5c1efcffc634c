"""What is in a data folder, in numbers: of every point, every label and every text.

N points of a split, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dexml.data.dataset import Dataset, Split
from dexml.data.duplicates import Hashes, line_hashes, text_batches, words_of
from dexml.data.notices import NAMES
from dexml.data.textfile import Lines
from dexml.data.tokenize import open_tokens, token_path
from dexml.data.tokenizer import RowTokenizer, load_tokenizer

Ints = NDArray[np.int64]
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
SAMPLE = 20_000  # texts of a file that are tokenised
UNCUT = 1 << 20  # tokens


@dataclass(frozen=True)
class Measure:
    """A number that each of several points or labels has."""

    key: str
    name: str
    values: Ints
    most: int | None = None
    """Where training cuts texts off."""

    @property
    def quantiles(self) -> list[float]:
        return np.quantile(self.values, QUANTILES).tolist() if len(self.values) else [0.0] * len(QUANTILES)

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self.values) else 0.0

    @property
    def median(self) -> float:
        return self.quantiles[QUANTILES.index(0.5)]

    @property
    def cut(self) -> float:
        """Share of the texts that are longer than `most`."""
        return float((self.values > self.most).mean()) if self.most and len(self.values) else 0.0

    @property
    def lost(self) -> float:
        """Share of the tokens that are behind `most`."""
        if self.most is None or not self.cut:
            return 0.0
        return float(np.maximum(self.values - self.most, 0).sum() / self.values.sum())


@dataclass(frozen=True)
class Scan:
    """Of the texts of a file: words, and hashes as they stand and folded (see duplicates.py), all [N]."""

    words: Ints
    exact: Hashes
    folded: Hashes

    @classmethod
    def of(cls, lines: Lines) -> Scan:
        """One pass; 24 bytes a text stay in memory."""
        words, exact, folded = [np.empty(0, np.int64)], [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for _, texts in text_batches(lines):
            words.append(word_counts(texts))
            exact.append(line_hashes(texts))
            folded.append(words_of(texts).text_hashes())
        return cls(np.concatenate(words), np.concatenate(exact), np.concatenate(folded))


@dataclass(frozen=True)
class Statistics:
    """A loaded folder, looked at once; with a tokenizer also in tokens."""

    dataset: Dataset
    tokenizer: str | None = None
    max_len: int = 128

    def __post_init__(self) -> None:
        """DataError for a tokenizer, a length or a token file that training would refuse."""
        if self.tokenizer is None:
            return
        RowTokenizer(load_tokenizer(self.tokenizer), self.max_len)
        for lines in self._files.values():
            ours, theirs = (token_path(lines.path, self.tokenizer, self.max_len, end) for end in (".tokens", ".dat"))
            if theirs.exists() and not ours.exists():
                open_tokens(lines.path, self.tokenizer, self.max_len, build=False)

    @cached_property
    def scans(self) -> dict[str, Scan]:
        """Of each split, and of the labels as "lbl"."""
        return {name: Scan.of(lines) for name, lines in self._files.items()}

    @cached_property
    def points_L(self) -> Ints:
        """[L] training points of each label."""
        return _label_points(self.dataset.trn)

    @cached_property
    def other_points_L(self) -> Ints:
        """[L] points of each label in the other splits."""
        others = [_label_points(split) for name, split in self.dataset.splits.items() if name != "trn"]
        return np.sum(others, axis=0, dtype=np.int64)

    @cached_property
    def measures(self) -> list[Measure]:
        splits = self.dataset.splits
        of_points = [
            Measure(f"labels-{name}", f"labels of a {NAMES[name]} point", np.diff(split.relevance.indptr))
            for name, split in splits.items()
        ]
        of_labels = Measure("points", "training points of a label", self.points_L)
        words = [Measure(f"words-{key}", f"words of a {_noun(key)}", scan.words) for key, scan in self.scans.items()]
        return [*of_points, of_labels, *words, *self._tokens()]

    def _tokens(self) -> list[Measure]:
        """Tokens of up to SAMPLE texts of each file, evenly spread."""
        if self.tokenizer is None:
            return []
        rows = RowTokenizer(load_tokenizer(self.tokenizer), UNCUT)
        return [
            Measure(f"tokens-{key}", f"tokens of a {_noun(key)}", _sampled_lengths(lines, rows), self.max_len)
            for key, lines in self._files.items()
        ]

    @property
    def _files(self) -> dict[str, Lines]:
        texts = {name: split.texts for name, split in self.dataset.splits.items()}
        return texts | {"lbl": self.dataset.label_texts}


def word_counts(texts: list[str]) -> Ints:
    """[B] words of each text (without a newline) between white space of ASCII."""
    data = np.frombuffer(("\n".join(texts) + "\n").encode(), np.uint8) if texts else np.empty(0, np.uint8)
    space = (data == 32) | ((data >= 9) & (data <= 13)) | ((data >= 28) & (data <= 31))
    begins = np.flatnonzero(~space & np.concatenate([[True], space[:-1]]))
    return np.diff(np.searchsorted(begins, np.flatnonzero(data == 10)), prepend=0)


def _sampled_lengths(lines: Lines, rows: RowTokenizer) -> Ints:
    chosen = np.unique(np.linspace(0, len(lines) - 1, min(SAMPLE, len(lines))).astype(np.int64))
    parts = np.array_split(chosen, max(1, len(chosen) // 1000))
    return np.concatenate([rows.encode(lines.read(part))[1] for part in parts])


def _label_points(split: Split) -> Ints:
    return np.bincount(split.relevance.indices, minlength=split.relevance.shape[1])


def _noun(key: str) -> str:
    return "label" if key == "lbl" else f"{NAMES[key]} text"
