from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hubserver import Hub, point_here, running_hub
from tests.training.runs import train


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seconds, with a bottleneck and a calibration. Not to be changed."""
    cfg, _ = train(tmp_path_factory.mktemp("run"), num_epochs=2, bottleneck_dim=6)
    return cfg.out_dir


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub on loopback, which this process uses as the user `maker`."""
    with running_hub() as hub:
        point_here(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield hub
