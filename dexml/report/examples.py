"""Test points worth a look, and what each run made of them. Chosen by rule, so that two reports show the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexml.report.evidence import Evidence, Ranked
from dexml.report.run import Run

SHOWN = 4  # examples a kind
SEARCHED = 500  # candidates looked at for a kind
PLACES = 5  # predictions an example
NAMES = 8  # true labels an example
TEXT, LABEL = 320, 90  # characters kept
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Guess:
    """A predicted label."""

    name: str
    score: float
    hit: bool


@dataclass(frozen=True)
class Answer:
    """A run's first predictions for a text; `ranks` are those of the text's true labels (0: not in the list)."""

    run: Run
    guesses: list[Guess]
    ranks: list[int]
    depth: int


@dataclass(frozen=True)
class Example:
    row: int
    text: str
    truth: list[str]
    more: int
    """True labels that are not in `truth`."""
    answers: list[Answer]


@dataclass(frozen=True)
class Kind:
    title: str
    rule: str
    examples: list[Example]


def pick(runs: Sequence[Run], evidence: Evidence) -> list[Kind]:
    """The kinds of examples with their texts."""
    runs = [run for run in runs if run.letter in evidence.ranked]
    return [
        Kind(title, rule, [_example(int(row), runs, evidence) for row in rows])
        for title, rule, rows in _choices(evidence)
        if len(rows)
    ]


def _choices(evidence: Evidence) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """(title, rule, rows) of every kind."""
    true_n = evidence.true_n
    labelled = np.flatnonzero(true_n)
    places = min(PLACES, evidence.depth)
    found_RN = np.stack([lists.hits[labelled, :places].sum(1) for lists in evidence.ranked.values()])
    share_RN = found_RN / np.minimum(true_n[labelled], places)
    mean_N, sure_N = share_RN.mean(0), _confidence(list(evidence.ranked.values()))[labelled]
    best = labelled[np.lexsort((labelled, -sure_N, -np.minimum(true_n[labelled], places), -mean_N))]
    worst = labelled[np.lexsort((labelled, -sure_N, mean_N))]
    if len(share_RN) > 1:
        apart = share_RN.max(0) - share_RN.min(0)
        most = np.lexsort((labelled, -true_n[labelled], -apart))
        rule = f"Texts where one run finds many more of the true labels in its first {places} places than another."
        yield "Where the runs differ most", rule, _unlike(labelled[most[apart[most] > 0]], evidence)
    yield "Worst", f"Least of the true labels in the first {places} places; the surest first.", _unlike(worst, evidence)
    yield (
        "Best",
        f"Most of the true labels in the first {places} places; those with many labels first.",
        _unlike(best, evidence),
    )
    drawn = np.random.default_rng(0).permutation(labelled)[:SHOWN]
    yield "Drawn at random", "The everyday case; drawn with seed 0.", np.sort(drawn)


def _unlike(rows: NDArray[np.int64], evidence: Evidence) -> NDArray[np.int64]:
    """The first rows whose sets of true labels differ: near copies of a text teach nothing new."""
    truth = evidence.truth
    seen: dict[bytes, int] = {}
    for row in rows[:SEARCHED].tolist():
        seen.setdefault(truth.indices[truth.indptr[row] : truth.indptr[row + 1]].tobytes(), row)
    return np.array(list(seen.values())[:SHOWN], np.int64)


def _confidence(ranked: Sequence[Ranked]) -> NDArray[np.float64]:
    """[N] score of the first place, mean over the runs."""
    return np.mean([lists.scores[:, 0].astype(np.float64) for lists in ranked], axis=0)


def _example(row: int, runs: Sequence[Run], evidence: Evidence) -> Example:
    data = evidence.dataset
    own = evidence.truth.indices[evidence.truth.indptr[row] : evidence.truth.indptr[row + 1]].astype(np.int64)
    names = [shorten(name, LABEL) for name in data.label_texts.read(own[:NAMES])]
    answers = [_answer(row, run, evidence, own[:NAMES]) for run in runs]
    text = shorten(data.tst.texts[row], TEXT)
    return Example(row, text, names, max(0, len(own) - NAMES), answers)


def _answer(row: int, run: Run, evidence: Evidence, own: NDArray[np.int64]) -> Answer:
    lists = evidence.ranked[run.letter]
    ids = lists.ids[row]
    real = np.flatnonzero(ids >= 0)[:PLACES]
    names = evidence.dataset.label_texts.read(ids[real])
    scores, hits = lists.scores[row, real].tolist(), lists.hits[row, real].tolist()
    guesses = [Guess(shorten(n, LABEL), s, h) for n, s, h in zip(names, scores, hits, strict=True)]
    at = ids[None, :] == own[:, None]
    ranks = np.where(at.any(1), at.argmax(1) + 1, 0)
    return Answer(run, guesses, ranks.tolist(), ids.size)


def shorten(text: str, size: int) -> str:
    """At most `size` characters on one line, without control characters; what is cut ends in an ellipsis."""
    clean = UNPRINTABLE.sub(" ", text[: size + 1])
    return clean if len(text) <= size else clean[: size - 1].rstrip() + "…"
