"""The commands and examples of docs/hub.md and docs/predict.md run as they stand, on a run of seconds."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from dexml.cli import main
from dexml.hub.bundle import Bundle
from dexml.hub.cardtext import Given
from dexml.hub.package import packed
from dexml.hub.push import push
from tests.helpers.hubserver import Hub
from tests.helpers.processes import ROOT

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [code for name, code in BLOCK.findall(text) if name == language]


@pytest.fixture
def place(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name."""
    (tmp_path / "texts.txt").write_text("red fox\nblue boat\n")
    (tmp_path / "articles.csv").write_text("title,body\nred fox,in the old picture\n,\n")
    (tmp_path / "new_labels.txt").write_text("whiteout\n")
    (tmp_path / "labels.txt").write_text("storm\nship\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(page: str, run: Path) -> list[tuple[list[str], str]]:
    """Words of each command, and the file it reads from standard input."""
    lines = [line for code in blocks(page, "bash") for line in code.splitlines()]
    found = []
    for line in lines:
        command, _, source = line.partition("<")
        found.append((shlex.split(command.replace("$RUN", str(run)), comments=True)[1:], source.strip()))
    return found


def test_the_commands_for_predicting(run: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, source in commands("predict.md", run):
        with (place / (source or "texts.txt")).open("rb") as file:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read())))
        assert main(words) == 0, words
    assert {p.name for p in place.iterdir()} >= {"labels.jsonl", "labelled.csv", "labelled.parquet"}


def test_the_python_of_the_pages(run: Path, place: Path, hub: Hub) -> None:
    shutil.copytree(run / "best", place / "bundle")
    hub_id = "maker/my-model"
    with packed(run, hub_id, Given(), on_hub=True) as files:
        push(files, hub_id)
    for code in [*blocks("predict.md", "python"), *blocks("hub.md", "python")]:
        exec(code.replace("me/my-model", hub_id), {"RUN": str(run), "BUNDLE": str(place / "bundle")})
    assert Bundle.load(place / "bundle").labels[-1] == "whiteout"


def test_the_commands_for_the_hub(run: Path, place: Path, hub: Hub) -> None:
    model = run.parents[3] / "model"
    for words, _ in commands("hub.md", run):
        place_of = {"me/my-model": "maker/my-model", "sentence-transformers/all-MiniLM-L6-v2": str(model)}
        assert main([place_of.get(word, word) for word in words]) == 0, words
    assert list(hub.repositories) == ["maker/my-model"] and Bundle.load(place / "zero-shot").labels[1] == "ship"
