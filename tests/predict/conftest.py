from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import train


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds with a calibration. Not to be changed."""
    cfg, _ = train(tmp_path_factory.mktemp("run"), num_epochs=2)
    return cfg.out_dir
