"""The examples of docs/mhe.md run as they stand, its tables hold the figures of the JSON file."""

import json
import re

import pytest

from bench.mhe import table
from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs" / "mhe.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_runs(code: str) -> None:
    exec(code, {})


def test_the_tables_are_those_of_the_measured_rows() -> None:
    costs, learnt = (
        json.loads((ROOT / "docs" / f"results-{name}.json").read_text(encoding="utf-8")) for name in ("mhe", "heads")
    )
    assert table(costs) in PAGE
    for row in (row for row in learnt if row["name"].startswith("frozen-")):
        (line,) = [line for line in PAGE.splitlines() if f"| {row['name']} |" in line]
        cells = [cell.strip() for cell in line.split("|")]
        assert [row[key] for key in ("P@1", "P@5", "R@100")] == [float(cells[i]) for i in (3, 5, 7)]
        assert cells[8] == ("" if row["ghosts"] is None else str(row["ghosts"]))
