"""The example of docs/label-trees.md runs as it stands."""

import re
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT


def test_the_example_of_the_label_tree_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "label-trees.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
