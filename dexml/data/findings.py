"""What a user should know about a data folder, from its statistics: leaks between splits, repeats, odd label texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dexml.data.duplicates import FIRST_WORDS, find, line_hashes, near_duplicates, repeats
from dexml.data.notices import MANY, NAMES, Warned, row_lines
from dexml.data.statistics import Measure, Statistics

Ints = NDArray[np.int64]
ALMOST_ALL = 0.8  # share of the training points that a label need not tell apart
CUT = 0.1  # share of texts cut off that is worth a warning
LONG = 50  # words of a label text
SHOWN, WIDTH = 3, 160  # examples of a finding, and their characters
NUMERIC = re.compile(r"[\d\W_]*\d[\d\W_]*")
ID = re.compile(
    r"(?:https?:|urn:)\S+|[0-9a-f-]{16,}|[a-z]{0,4}[-_:./#]?\d[\d\-_:./]+[a-z]?|[a-z]+[_:]\d+", re.IGNORECASE
)


class Finding(NamedTuple):
    text: str
    warns: bool
    examples: list[str]


def all_findings(of: Statistics) -> list[Finding]:
    """Warnings first. The first notice of the data set, its summary, is not among them."""
    told = [Finding(text, isinstance(text, Warned), []) for text in of.dataset.notices[1:]]
    found = [*told, *_leaks(of), *_repeats(of), *_labels(of), *_label_texts(of), *_lengths(of)]
    return sorted(found, key=lambda finding: not finding.warns)


# ---- points ---------------------------------------------------------------------------------------------------------


def _leaks(of: Statistics) -> Iterator[Finding]:
    """Texts of the other splits that are training texts too: as they stand, folded, nearly."""
    trn = of.scans["trn"]
    for name in of.dataset.splits:
        if name == "trn":
            continue
        scan = of.scans[name]
        same, folded = find(scan.exact, trn.exact), find(scan.folded, trn.folded)
        folded[same >= 0] = -1
        near = _near(of, name, np.flatnonzero((same < 0) & (folded < 0)))
        kinds = (
            ("are training texts too: what a model knows by heart counts as right", same),
            ("differ from a training text in case, punctuation or white space only", folded),
            (f"share four in five of the first {FIRST_WORDS} words with a training text: easier than new ones", near),
        )
        for kind, match in kinds:
            yield from _leak(of, name, kind, match)


def _near(of: Statistics, name: str, rows: Ints) -> Ints:
    """[N] a similar training text of each of these rows of a split; the smaller side is kept in memory."""
    match = np.full(len(of.dataset.splits[name]), -1)
    match[rows] = near_duplicates(of.dataset.splits[name].texts, rows, of.dataset.trn.texts)
    return match


def _leak(of: Statistics, name: str, kind: str, match: Ints) -> Iterator[Finding]:
    rows = np.flatnonzero(match >= 0)
    if not len(rows):
        return
    split, share = of.dataset.splits[name], len(rows) / len(match)
    pairs = zip(split.texts.read(rows[:SHOWN]), of.dataset.trn.texts.read(match[rows[:SHOWN]]), strict=True)
    lines = zip(rows[:SHOWN] + 1, match[rows[:SHOWN]] + 1, strict=True)
    examples = [
        f"{name}_X.txt:{own} {_short(text)}" + ("" if text == other else f"\n≈ trn_X.txt:{theirs} {_short(other)}")
        for (text, other), (own, theirs) in zip(pairs, lines, strict=True)
    ]
    yield Finding(f"{len(rows):,} {NAMES[name]} texts ({_percent(share)}) {kind}", share >= MANY, examples)


def _repeats(of: Statistics) -> Iterator[Finding]:
    for name, split in of.dataset.splits.items():
        rows = repeats(of.scans[name].exact)
        if len(rows):
            told = (
                f"{len(rows):,} {NAMES[name]} texts ({_percent(len(rows) / len(split))}) repeat an earlier one: "
                f"merge them, their labels united: {name}_X.txt {row_lines(rows)}"
            )
            yield Finding(told, len(rows) >= MANY * len(split), _examples(split.texts.read(rows[:SHOWN]), rows))


def _lengths(of: Statistics) -> Iterator[Finding]:
    cut = (one for one in of.measures if one.cut and one.key in ("tokens-trn", "tokens-lbl"))
    yield from (Finding(_cut(one), one.cut >= CUT, []) for one in cut)


def _cut(one: Measure) -> str:
    kind = one.name.removeprefix("tokens of a ")
    return f"{one.cut:.1%} of the {kind}s are longer than {one.most} tokens; {one.lost:.1%} of all tokens are cut off"


# ---- labels ---------------------------------------------------------------------------------------------------------


def _labels(of: Statistics) -> Iterator[Finding]:
    seen, tested = of.points_L > 0, of.other_points_L > 0
    nowhere = np.flatnonzero(~seen & ~tested)
    if len(nowhere):
        yield _of_labels(of, nowhere, "have no text in any split")
    pairs = int(of.other_points_L[~seen].sum())
    if pairs:
        share = pairs / of.other_points_L.sum()
        told = f"{pairs:,} pairs of the other splits ({_percent(share)}) are of labels without a training point"
        yield Finding(told, warns=False, examples=[])
    common = np.flatnonzero(of.points_L >= ALMOST_ALL * len(of.dataset.trn))
    if len(common):
        yield _of_labels(of, common, f"are given to {ALMOST_ALL:.0%} of the training points or more")._replace(
            warns=True
        )


def _label_texts(of: Statistics) -> Iterator[Finding]:
    texts, scan = list(of.dataset.label_texts), of.scans["lbl"]
    cased = np.setdiff1d(repeats(line_hashes([" ".join(t.casefold().split()) for t in texts])), repeats(scan.exact))
    numeric = np.array([bool(NUMERIC.fullmatch(text)) for text in texts], bool)
    ids = np.array([bool(ID.fullmatch(text)) for text in texts], bool) & ~numeric
    kinds = (
        (cased, "differ from an earlier label in case or white space only"),
        (np.flatnonzero(numeric), "are numbers, of which a text encoder knows nothing"),
        (np.flatnonzero(ids), "look like ids: give them names, if they have any"),
        (np.flatnonzero([len(text) == 1 for text in texts]), "are one character long"),
        (np.flatnonzero(scan.words > LONG), f"have more than {LONG} words"),
    )
    for rows, told in kinds:
        if len(rows):
            yield _of_labels(of, rows, told, warns=len(rows) >= MANY * len(texts))


def _of_labels(of: Statistics, rows: Ints, told: str, warns: bool = False) -> Finding:
    text = f"{len(rows):,} labels ({_percent(len(rows) / of.dataset.n_labels)}) {told}: Y.txt {row_lines(rows)}"
    return Finding(text, warns, _examples(of.dataset.label_texts.read(rows[:SHOWN]), rows))


def _examples(texts: list[str], rows: Ints) -> list[str]:
    return [f"{row + 1}: {_short(text)}" for text, row in zip(texts, rows[:SHOWN].tolist(), strict=True)]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "< 0.1%"


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1].rstrip() + "…"
