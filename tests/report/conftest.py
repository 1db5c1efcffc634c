"""One made-up data set with two runs on it, and their page."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexml.report.command import write_report
from tests.report.folders import write_data, write_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("two")
    write_data(root)
    hostile = {"desc": "</script><script>alert(1)</script>", "lr": 0.1}
    return [write_run(root, "sharp <b>&", **hostile), write_run(root, "$blurred$ {{name}}", noise=2.0, lr=0.2)]


@pytest.fixture(scope="session")
def page(two_runs: list[Path]) -> Path:
    """index.html of both runs, in the folder of the first."""
    return write_report(two_runs)
