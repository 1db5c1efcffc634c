from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from dexml.cli import main
from dexml.hub.bundle import Bundle

Capture = pytest.CaptureFixture[str]
ROWS = [
    {"key": "a,1", "title": "red fox", "body": "in the old picture"},
    {"key": 'b"2', "title": "blue boat", "body": ""},
    {"key": "c\n3", "title": "", "body": ""},
    {"key": "d 4", "title": "élève \U0001f98a \u2028 gold lamp", "body": "and a river"},
]
TEXTS = ["red fox in the old picture", "blue boat", "", "élève \U0001f98a \u2028 gold lamp and a river"]
COLUMNS = ["--text-column", "title", "--text-column", "body"]


def write_table(path: Path) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([{**row, "n": i} for i, row in enumerate(ROWS)]), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({**row, "n": i}, ensure_ascii=False) for i, row in enumerate(ROWS)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt", encoding="utf-8", newline="") as file:
            separator = "\t" if ".tsv" in path.name else ","
            writer = csv.DictWriter(file, ["key", "title", "body", "n"], delimiter=separator)
            writer.writeheader()
            writer.writerows({**row, "n": i} for i, row in enumerate(ROWS))
    return path


def read_table(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    lists = ("predicted", "predicted_ids", "scores", "probabilities")
    return [{key: json.loads(value) if key in lists else value for key, value in row.items()} for row in rows]


def expected(run: Path) -> list[list[dict[str, Any]]]:
    found = iter(Bundle.load(run).find([text for text in TEXTS if text], 3))
    return [next(found) if text else [] for text in TEXTS]


@pytest.mark.parametrize("source", ["in.csv", "in.tsv", "in.jsonl", "in.parquet", "in.csv.gz"])
@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_a_table_comes_back_with_its_columns_and_the_labels(
    run: Path, tmp_path: Path, source: str, target: str, capsys: Capture
) -> None:
    table, out = write_table(tmp_path / source), tmp_path / target
    words = ["--input", str(table), "--output", str(out), "--top-k", "3", *COLUMNS]
    assert main(["predict", str(run), *words]) == 0
    assert "1 of 4 texts are blank and have no labels" in capsys.readouterr().err
    rows, labels = read_table(out), expected(run)
    assert [(row["key"], row["title"]) for row in rows] == [(row["key"], row["title"]) for row in ROWS]
    kept = isinstance(rows[0]["n"], int)
    assert [row["n"] for row in rows] == ([0, 1, 2, 3] if kept else ["0", "1", "2", "3"])
    if target == "out.jsonl":
        assert [row["predictions"] for row in rows] == labels
        return
    assert [row["predicted"] for row in rows] == [[label["text"] for label in one] for one in labels]
    assert [row["predicted_ids"] for row in rows] == [[label["id"] for label in one] for one in labels]
    for name, key in (("scores", "score"), ("probabilities", "probability")):
        assert [row[name] for row in rows] == [[label[key] for label in one] for one in labels]


def test_a_text_file_gives_what_its_lines_give_on_standard_input(run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in.txt").write_text("red fox\nblue boat\n")
    assert main(["predict", str(run), "red fox", "blue boat", "--jsonl"]) == 0
    by_words = capsys.readouterr().out
    assert main(["predict", str(run), "--input", str(tmp_path / "in.txt"), "--jsonl"]) == 0
    assert capsys.readouterr().out == by_words
    assert main(["predict", str(run), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "o.jsonl")]) == 0
    assert (tmp_path / "o.jsonl").read_text() == by_words


def test_a_run_and_its_bundle_are_the_same_model(run: Path, capsys: Capture) -> None:
    found = []
    for model in (run, run / "best"):
        assert main(["predict", str(model), "red fox", "--batch-size", "1", "--device", "cpu"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]


def test_new_labels_of_a_file_are_predicted_and_exported_without_training(
    run: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "new.txt").write_text("silver violin in the old picture\npink cloud\n")
    words = ["silver violin in the old picture", "--top-k", "1", "--jsonl"]
    n = len(Bundle.load(run).labels)
    new = ["--add-labels", str(tmp_path / "new.txt")]
    assert main(["predict", str(run), *words, *new]) == 0
    (label,) = json.loads(capsys.readouterr().out)["labels"]
    assert (label["id"], label["text"]) == (n, "silver violin in the old picture")
    assert main(["predict", str(run), *words]) == 0
    assert json.loads(capsys.readouterr().out)["labels"][0]["id"] != n, "for one call alone"
    assert main(["export", str(run), str(tmp_path / "out"), *new]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "out"), *words]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == [label]
    (tmp_path / "new.txt").write_text("red fox\n")
    assert main(["predict", str(run), *words, *new]) == 2
    assert "'red fox' is a label already" in capsys.readouterr().err


BAD = {
    "no text column": ("in.csv", b"a,b\n1,2\n", "in.csv: which column is the text? the columns are 'a', 'b'"),
    "cells": ("in.csv", b"text,b\nx,1\ny,2,3\n", "in.csv:3: 3 cells in 2 columns"),
    "a number": ("in.jsonl", b'{"text": "x"}\n{"text": 7}\n', "in.jsonl:2: column 'text' holds '7': a text is needed"),
    "no JSON": ("in.jsonl", b'{"text": "x"}\n{"text"\n', "in.jsonl:2: not JSON"),
    "no object": ("in.jsonl", b'["x"]\n', "in.jsonl:1: not an object"),
    "Latin-1": ("in.csv", b"text\nx\n\xe9\n", "in.csv:3: not valid UTF-8"),
    "Latin-1 lines": ("in.txt", b"x\n\xe9\n", "in.txt:2: not valid UTF-8"),
    "no Parquet": ("in.parquet", b"text", "in.parquet: not a readable Parquet file"),
    "a name": ("in.xlsx", b"text", "in.xlsx: the name must end in .txt, .csv, .tsv, .jsonl, .parquet"),
    "our column": ("in.csv", b"text,scores\nx,1\n", "there is a column 'scores' already"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_read_is_told_before_any_work(
    run: Path, tmp_path: Path, capsys: Capture, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(Bundle, "find", lambda *_: pytest.fail("the work was started"))
    assert main(["predict", str(run), "--input", str(tmp_path / name), "--output", str(tmp_path / "out.csv")]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_output_of_an_unknown_kind_is_told(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["predict", str(run), "x", "--output", str(tmp_path / "out.xlsx")]) == 2
    assert "out.xlsx: the name must end in .txt, .jsonl, .csv, .tsv, .parquet" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(run: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = f"yes 'red fox' | head -200000 | {sys.executable} -m dexml.cli predict {run} --batch-size 8 | head -3"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines()[0] == "red fox" and len(done.stdout.splitlines()) == 3
    assert "error" not in done.stderr and "Traceback" not in done.stderr
