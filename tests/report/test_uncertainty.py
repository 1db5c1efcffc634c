"""The section about an ensemble's uncertainty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dexml.report.command import write_report
from tests.report.folders import write_data, write_run

JUDGED = {"auroc": 0.8, "ap": 0.5}
SCORES = ("total", "data", "knowledge", "1 - mean p", "1 - p of one member", "1 - max mean p")
FOUND: dict[str, Any] = {
    "members": ["a", "b"],
    "points": 40,
    "wrong labels": {"1": {"wrong": 0.25, "scores": dict.fromkeys(SCORES, JUDGED)}},
    "kept": {"share": [50.0, 100.0], "1 - mean p": [90.0, 75.0]},
    "others": 7,
    "other texts": dict.fromkeys(SCORES, JUDGED),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return write_run(tmp_path)


def page_with(run: Path, summary: str) -> str:
    (run / "uncertainty").mkdir(exist_ok=True)
    (run / "uncertainty" / "summary.json").write_text(summary)
    return write_report([run]).read_text(encoding="utf-8")


def test_an_ensemble_has_a_section(run: Path) -> None:
    page = page_with(run, json.dumps(FOUND))
    assert '<section id="uncertainty">' in page and "7 texts of another kind" in page
    assert {path.stem for path in (run / "report").glob("uncertainty*.png")} == {
        "uncertainty-wrong", "uncertainty-kept", "uncertainty-other",
    }  # fmt: skip
    alone = {name: part for name, part in FOUND.items() if name != "other texts"}
    assert "Texts of another kind" not in page_with(run, json.dumps(alone))


def test_without_an_ensemble_there_is_none(run: Path) -> None:
    assert 'id="uncertainty"' not in write_report([run]).read_text(encoding="utf-8")


@pytest.mark.parametrize("summary", ["{", "[]", '{"members": []}'])
def test_a_broken_summary_is_told_and_left_out(run: Path, summary: str) -> None:
    page = page_with(run, summary)
    assert "summary.json cannot be read" in page and 'id="uncertainty"' not in page
