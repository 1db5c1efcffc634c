"""Data sets of any size whose structure is known: what a text says about its labels, and what is noise.

Every number is a hash of (seed, purpose, point or label, place), so a set is the same whatever the chunk size, and a
larger set of the same seed begins with the texts of a smaller one.

N points of a chunk, K slots for labels of a point, W slots for words of a point, L labels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.batching import hash64
from dexml.data.files import DataError
from dexml.data.folders import check_free, new_folder

Ints = NDArray[np.int64]

SYLLABLES = np.array([first + second for first in "bcdfghjklmnprstvwxyz" for second in "aeiou"])
LARGEST_VOCABULARY = len(SYLLABLES) ** 3
MOST_LABELS = 10_000_000
MOST_WORDS = 4  # of a label
KEPT = 0.7  # chance that a text says a word of its label, after the first
LABELS, NAMES, DRAWS, WORDS, NOISE, ORDER, UNSEEN = range(7)  # purposes of a hash
SPLITS = ("trn", "tst")
CHUNK = 1 << 20  # words made together


def _option(default: Any, about: str) -> Any:
    return field(default=default, metadata={"help": f"{about} ({default:,})"})


@dataclass(frozen=True)
class Synthetic:
    """A data set of any size with known structure."""

    points: int = _option(10_000, "training points")
    test_points: int = _option(2_000, "test points")
    labels: int = _option(1_000, "labels, of different texts")
    labels_per_point: float = _option(3.0, "drawn for a text, in the mean; a label drawn twice counts once")
    zipf: float = _option(1.0, "the label of rank r is drawn in proportion to r ** -zipf")
    unseen: float = _option(0.05, "share of the labels that no training text has")
    noise: int = _option(4, "words of a text that say nothing")
    vocabulary: int = _option(20_000, "different words")
    seed: int = _option(0, "another seed, another set")

    def check(self) -> None:
        """DataError names the first value that makes no data set."""
        rules = [
            ("points", self.points >= 1, "at least 1"),
            ("test-points", self.test_points >= 1, "at least 1"),
            ("labels", 2 <= self.labels <= MOST_LABELS, f"between 2 and {MOST_LABELS:,}"),
            ("labels-per-point", 1 <= self.labels_per_point <= 1000, "between 1 and 1000"),
            ("zipf", 0 <= self.zipf <= 10, "between 0 and 10"),
            ("unseen", 0 <= self.unseen < 1, "at least 0 and less than 1"),
            ("noise", 0 <= self.noise <= 100_000, "between 0 and 100,000"),
            ("vocabulary", self.vocabulary**2 >= self.labels, f"at least the root of {self.labels} labels"),
            ("vocabulary", 2 <= self.vocabulary <= LARGEST_VOCABULARY, f"between 2 and {LARGEST_VOCABULARY:,}"),
        ]
        for name, holds, rule in rules:
            if not holds:
                raise DataError(f"--{name} is {getattr(self, name.replace('-', '_'))}: it must be {rule}")

    # ---- words and labels -------------------------------------------------------------------------------------------

    @cached_property
    def words(self) -> NDArray[np.object_]:
        """[vocabulary] different made-up words."""
        number = _shuffled(np.arange(self.vocabulary), LARGEST_VOCABULARY)
        syllables = [SYLLABLES[number // len(SYLLABLES) ** place % len(SYLLABLES)] for place in range(3)]
        return np.char.add(np.char.add(*syllables[:2]), syllables[2]).astype(object)

    @cached_property
    def _endings(self) -> NDArray[np.object_]:
        """Every word before a space, then every word at the end of a line."""
        return np.concatenate([self.words + " ", self.words + "\n"])

    def label_words(self, labels: Ints) -> Ints:
        """[n, MOST_WORDS] the words of these labels, -1 where a label has fewer: two that no other label has in this
        order, and up to two more."""
        pair = _shuffled(labels, self.vocabulary**2)
        more = hash64(self.seed, NAMES, labels[:, None], np.arange(MOST_WORDS - 2)) % np.uint64(self.vocabulary)
        length = 2 + (hash64(self.seed, LABELS, labels) % np.uint64(MOST_WORDS - 1)).astype(np.int64)
        words = np.column_stack([pair // self.vocabulary, pair % self.vocabulary, more.astype(np.int64)])
        return np.where(np.arange(MOST_WORDS) < length[:, None], words, -1)

    @cached_property
    def is_unseen(self) -> NDArray[np.bool_]:
        """[L] labels that no training text has; the most frequent one is never among them."""
        unseen = _uniform(self.seed, UNSEEN, np.arange(self.labels)) < self.unseen
        unseen[self._by_rank[0]] = False
        return unseen

    @cached_property
    def _by_rank(self) -> Ints:
        """[L] the label of each rank, so that frequent labels lie anywhere."""
        return _shuffled(np.arange(self.labels), self.labels)

    def _cumulative(self, split: str) -> NDArray[np.float64]:
        weight = np.arange(1, self.labels + 1, dtype=np.float64) ** -self.zipf
        if split == "trn":
            weight[self.is_unseen[self._by_rank]] = 0
        total = np.cumsum(weight)
        return total / total[-1]

    @property
    def _slots(self) -> int:
        """Most labels that are drawn for a text: twice the mean, less the one that every text has."""
        return max(2, round(2 * self.labels_per_point - 1))

    # ---- points -----------------------------------------------------------------------------------------------------

    def chunks(self, split: str, size: int) -> Iterator[tuple[str, sparse.csr_matrix]]:
        """Texts, each ended by a newline, and relevance [N, L] of up to `size` points of a split at a time."""
        count = self.points if split == "trn" else self.test_points
        cumulative = self._cumulative(split)
        for begin in range(0, count, size):
            points = np.arange(begin, min(begin + size, count))
            relevance = self._relevance(SPLITS.index(split), points, cumulative)
            yield self._texts(SPLITS.index(split), points, relevance), relevance

    def _relevance(self, split: int, points: Ints, cumulative: NDArray[np.float64]) -> sparse.csr_matrix:
        place = np.arange(self._slots)
        share = (self.labels_per_point - 1) / (self._slots - 1)
        drawn_NK = _uniform(self.seed, DRAWS, split, points[:, None], place)
        used_NK = (_uniform(self.seed, LABELS, split, points[:, None], place) < share) | (place == 0)
        rank_NK = np.minimum(np.searchsorted(cumulative, drawn_NK, side="right"), self.labels - 1)
        rows, labels = np.repeat(np.arange(len(points)), used_NK.sum(1)), self._by_rank[rank_NK[used_NK]]
        shape = (len(points), self.labels)
        relevance = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, labels)), shape=shape)
        relevance.sum_duplicates()
        relevance.data[:] = 1  # a label drawn twice counts once
        return relevance

    def _texts(self, split: int, points: Ints, relevance: sparse.csr_matrix) -> str:
        """Some words of each label, the first among them, and noise, in an order of their own."""
        cell_row = np.repeat(points, np.diff(relevance.indptr))
        labels = relevance.indices.astype(np.int64)
        of_label = self.label_words(labels)
        place = np.arange(MOST_WORDS)
        said = _uniform(self.seed, WORDS, split, cell_row[:, None], labels[:, None], place) < KEPT
        said = (said | (place == 0)) & (of_label >= 0)
        noise = hash64(self.seed, NOISE, split, points[:, None], np.arange(self.noise)) % np.uint64(self.vocabulary)
        row = np.concatenate([np.repeat(cell_row, said.sum(1)), np.repeat(points, self.noise)])
        word = np.concatenate([of_label[said], noise.astype(np.int64).ravel()])
        return self._joined(row, word, hash64(self.seed, ORDER, split, row, word))

    def _joined(self, row: Ints, word: Ints, key: NDArray[np.uint64]) -> str:
        """The words as lines of text, one for each row, sorted by row and key."""
        order = np.lexsort((word, key, row))
        row, word = row[order], word[order]
        ends = np.append(row[1:] != row[:-1], True)
        return "".join(self._endings[word + self.vocabulary * ends].tolist())

    # ---- the folder -------------------------------------------------------------------------------------------------

    def write(self, folder: Path, size: int | None = None) -> Path:
        """The data folder, and `synthetic.json` with what decided it; DataError if `folder` holds something.

        `size` points are made at a time; some 100 MB by default, and 8 bytes a pair of point and label.
        """
        self.check()
        size = size or max(1, CHUNK // (MOST_WORDS * self._slots + self.noise))
        with new_folder(folder) as building:
            (building / "raw").mkdir()
            with (building / "raw" / "Y.txt").open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(self._label_lines(size))
            for split in SPLITS:
                with (building / "raw" / f"{split}_X.txt").open("w", encoding="utf-8", newline="\n") as file:
                    parts = [relevance for text, relevance in self.chunks(split, size) if file.write(text)]
                sparse.save_npz(building / f"Y.{split}.npz", sparse.vstack(parts, format="csr"))
            (building / "synthetic.json").write_text(json.dumps(asdict(self), indent=1) + "\n")
        return folder

    def _label_lines(self, size: int) -> Iterator[str]:
        for begin in range(0, self.labels, size):
            labels = np.arange(begin, min(begin + size, self.labels))
            words = self.label_words(labels)
            yield self._joined(*_flat(labels, words))


def _flat(rows: Ints, words: Ints) -> tuple[Ints, Ints, NDArray[np.uint64]]:
    """Row, word and place of the entries that are not -1."""
    row, place = np.nonzero(words >= 0)
    return rows[row], words[row, place], place.astype(np.uint64)


def _uniform(*words: int | Ints) -> NDArray[np.float64]:
    """Numbers in [0, 1), a hash of the words."""
    return (hash64(*words) >> np.uint64(11)).astype(np.float64) / 2**53


def _shuffled(numbers: Ints, size: int) -> Ints:
    """Numbers below `size` to numbers below `size`, one to one, far from their order."""
    # The product stays below 2 ** 63: at most MOST_LABELS * LARGEST_VOCABULARY ** 2 * 0.7.
    step = next(step for step in range(round(0.618 * size) | 1, 2 * size + 1) if np.gcd(step, size) == 1)
    return (numbers.astype(np.int64) % size * (step % size) + size // 3) % size


def synthetic_command(folder: Path, words: Sequence[str]) -> Path:
    """`dexml prepare synthetic FOLDER --points N ...`"""
    parser = argparse.ArgumentParser(prog="dexml prepare synthetic", description=Synthetic.__doc__)
    for one in fields(Synthetic):
        flag = f"--{one.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(one.default), default=one.default, metavar="N", help=one.metadata["help"])
    spec = Synthetic(**vars(parser.parse_args(list(words))))
    spec.check()
    check_free(folder)
    return spec.write(folder)
