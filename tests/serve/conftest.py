from collections.abc import Iterator
from pathlib import Path

import pytest

from dexml.evaluation.calibration import Calibration
from dexml.serve.served import Served
from tests.serve.service import TEXTS, Client, make_bundle, serving


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Served]:
    """`plain`, and `sure`, which is calibrated and has training texts."""
    root = tmp_path_factory.mktemp("models")
    (root / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    sure = make_bundle(root / "sure", calibration=Calibration(0.2, 0.5))
    return [
        Served.load(str(make_bundle(root / "plain")), "plain", most=100),
        Served.load(str(sure), "sure", most=100, texts=Path(root / "texts.txt")),
    ]


@pytest.fixture(scope="module")
def client(models: list[Served]) -> Iterator[Client]:
    with serving(models) as found:
        yield found
