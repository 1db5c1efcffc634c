"""docs/results.md holds the tables of the measured rows."""

from __future__ import annotations

import json

from bench.quality import table
from tests.helpers.processes import ROOT


def test_the_page_shows_what_was_measured() -> None:
    rows = json.loads((ROOT / "docs" / "results-heads.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    trained = [row for row in rows if not row["name"].startswith("frozen-")]
    assert trained and table(trained) in page
