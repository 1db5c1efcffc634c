"""One toy data set and model for all runs here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.models import toy_config


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toy_config(folder)
    return folder
