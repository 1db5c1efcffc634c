"""The examples of docs/metrics.md run as they stand."""

import re

from tests.helpers.processes import ROOT


def test_the_examples_of_the_metrics_page_run() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code) >= 3
    exec("\n".join(code), {})
