from pathlib import Path

import numpy as np
import pytest

from dexml.report.evidence import Evidence, gather
from dexml.report.examples import PLACES, pick, shorten
from dexml.report.run import Run
from tests.report.folders import write_run


@pytest.fixture
def runs(root: Path) -> list[Run]:
    return [Run.read(write_run(root, name, noise), name) for name, noise in (("A", 1.2), ("B", 1.8))]


@pytest.fixture
def evidence(runs: list[Run]) -> Evidence:
    found = gather(runs, [])
    assert found is not None
    return found


def share(evidence: Evidence, letter: str, row: int) -> float:
    """Of the true labels that fit in the first places, those that are there."""
    true = set(evidence.dataset.tst.relevance[row].indices.tolist())
    found = [label for label in evidence.ranked[letter].ids[row, :PLACES].tolist() if label in true]
    return len(found) / min(PLACES, len(true))


def test_best_worst_and_furthest_apart_are_chosen_by_the_share_found(runs: list[Run], evidence: Evidence) -> None:
    kinds = {kind.title: [example.row for example in kind.examples] for kind in pick(runs, evidence)}
    labelled = [row for row in range(len(evidence.true_n)) if evidence.true_n[row]]
    mean = {row: np.mean([share(evidence, letter, row) for letter in "AB"]) for row in labelled}
    apart = {row: abs(share(evidence, "A", row) - share(evidence, "B", row)) for row in labelled}
    assert mean[kinds["Best"][0]] == max(mean.values())
    assert mean[kinds["Worst"][0]] == min(mean.values())
    assert apart[kinds["Where the runs differ most"][0]] == max(apart.values())
    assert len(set(kinds["Drawn at random"])) == 4


def test_one_run_differs_from_nothing(runs: list[Run]) -> None:
    evidence = gather(runs[:1], [])
    assert evidence is not None
    assert [kind.title for kind in pick(runs[:1], evidence)] == ["Worst", "Best", "Drawn at random"]


def test_hits_and_ranks_are_those_of_the_lists(runs: list[Run], evidence: Evidence) -> None:
    for kind in pick(runs, evidence):
        for example in kind.examples:
            own = evidence.dataset.tst.relevance[example.row].indices.tolist()
            for answer in example.answers:
                ids = evidence.ranked[answer.run.letter].ids[example.row].tolist()
                assert [guess.hit for guess in answer.guesses] == [label in own for label in ids[:PLACES]]
                assert answer.ranks == [ids.index(label) + 1 if label in ids else 0 for label in own[:8]]


def test_points_without_labels_are_no_examples(runs: list[Run], evidence: Evidence) -> None:
    shown = {example.row for kind in pick(runs, evidence) for example in kind.examples}
    assert evidence.true_n[-1] == 0 and len(evidence.true_n) - 1 not in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [("short", "short"), ("x" * 10, "x" * 10), ("x" * 11, "x" * 9 + "…"), ("a\x00b\x1bc", "a b c"),
     ("ab cd ef gh ij", "ab cd ef…")],
)  # fmt: skip
def test_texts_are_cut_to_one_printable_line(text: str, expected: str) -> None:
    assert shorten(text, 10) == expected
