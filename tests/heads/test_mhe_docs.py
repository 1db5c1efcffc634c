"""The examples of docs/mhe.md run as they stand, its tables hold the figures of the JSON file."""

import json
import re

import pytest

from bench.mhe import tables
from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs" / "mhe.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_runs(code: str) -> None:
    exec(code, {})


def test_the_tables_are_those_of_the_measured_rows() -> None:
    found = json.loads((ROOT / "docs" / "results-mhe.json").read_text(encoding="utf-8"))
    for table in tables(found).split("\n\n"):
        assert table in PAGE
