"""The examples of docs/plt.md and docs/uncertainty.md run as they stand."""

import re

import pytest

from tests.helpers.processes import ROOT


@pytest.mark.parametrize("page", ["plt", "uncertainty"])
def test_the_example_of_the_page_runs(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
