"""The example of docs/index.md runs as it stands."""

import re
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT


def test_the_example_of_the_index_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
