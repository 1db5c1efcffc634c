"""Hostile texts and labels through every format that can hold them, against what went in."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from hypothesis import example, given, settings

from dexml.data.convert import prepare
from dexml.data.convert.records import fold
from tests.data.convert.helpers import Point, expected, in_one_order, records, stored

Points = list[tuple[str, list[str]]]
HUGE = [("\u2028x" * (1 << 18), ["a\tb", 'q"']), ("\u202e\u05d0\U0001f600", ["7", "007"]), ("", [])]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8", newline="\n")


def names_in(points: Points) -> list[str]:
    return sorted({label for _, labels in points for label in labels})


def as_xmc(root: Path, points: Points) -> Path:
    names = names_in(points)
    numbers = [[names.index(label) for label in labels] for _, labels in points]
    rows = [{"title": text, "target_ind": ids} for (text, _), ids in zip(points, numbers, strict=True)]
    write_rows(root / "trn.json", rows)
    write_rows(root / "lbl.json", [{"title": name} for name in names])
    return root


def as_beir(root: Path, points: Points) -> Path:
    names = names_in(points)
    write_rows(root / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": name} for i, name in enumerate(names)])
    write_rows(root / "queries.jsonl", [{"_id": f"q{i}", "text": text} for i, (text, _) in enumerate(points)])
    pairs = [f"q{i}\td{names.index(label)}\t1\n" for i, (_, labels) in enumerate(points) for label in labels]
    (root / "qrels").mkdir()
    (root / "qrels" / "train.tsv").write_text("".join(pairs))
    return root


def as_disk(root: Path, points: Points) -> Path:
    columns = {"text": [text for text, _ in points], "labels": [labels for _, labels in points]}
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.Sequence(datasets.Value("string"))}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(root / "saved"))
    return root / "saved"


def as_lines(root: Path, points: Points) -> Path:
    """AttentionXML's two files, labels by number: only newlines end a line."""
    (root / "train_texts.txt").write_text("".join(f"{_line(text)}\n" for text, _ in points), "utf-8", newline="\n")
    names = names_in(points)
    rows = (" ".join(str(names.index(label)) for label in labels) for _, labels in points)
    (root / "train_labels.txt").write_text("".join(f"{row}\n" for row in rows))
    (root / "labels").write_text(
        "".join(f"{i}\t{_line(name)}\n" for i, name in enumerate(names)), "utf-8", newline="\n"
    )
    return root


def as_tabbed(root: Path, points: Points) -> Path:
    names = names_in(points)
    lines = (
        f"{i}\t{' '.join(str(names.index(label)) for label in labels)}\t{_line(text)}\n"
        for i, (text, labels) in enumerate(points)
    )
    (root / "train.txt").write_text("".join(lines), "utf-8", newline="\n")
    (root / "labels").write_text(
        "".join(f"{i}\t{_line(name)}\n" for i, name in enumerate(names)), "utf-8", newline="\n"
    )
    return root


def _line(text: str) -> str:
    return text.replace("\r\n", " ").replace("\n", " ")


def expected_of(points: Points, writer: Callable) -> list[Point]:
    """BEIR has no query without a document; an empty label text is told by the label's name."""
    kept = [(text, labels) for text, labels in points if labels or writer is not as_beir]
    return expected(kept)


@pytest.mark.parametrize(
    ("writer", "form"),
    [(as_xmc, None), (as_beir, None), (as_disk, None), (as_lines, None), (as_tabbed, "libmultilabel")],
)
def test_every_format_gives_back_what_went_in(writer, form):
    @settings(max_examples=12)
    @example(HUGE)
    @given(records)
    def check(points):
        points = [(text, list(dict.fromkeys(x for x in labels if fold(x)))) for text, labels in points]
        points += [("first", ["one"]), ("second", ["two"])]
        with tempfile.TemporaryDirectory() as root:
            source = writer(Path(root), points)
            labels = Path(root) / "labels"
            made = prepare(source, Path(root) / "d", form, labels=labels if labels.exists() else None)
            assert in_one_order(stored(made.path)) == expected_of(points, writer)

    check()
