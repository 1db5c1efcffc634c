"""bench/serve.py against a small service in this process."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from bench.common import BenchError
from bench.load import load
from bench.serve import measure, parse, render
from dexml.serve.limits import Limits
from dexml.serve.served import Served
from tests.serve.service import TEXTS, Client, make_bundle, serving


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def client(bundle: Path) -> Iterator[Client]:
    with serving([Served.load(str(bundle), "plain", most=100)]) as found:
        yield found


def test_the_bare_loops_and_every_number_of_clients_are_measured(bundle: Path, client: Client) -> None:
    args = argparse.Namespace(model=bundle, clients=[1, 3], seconds=0.2, repeats=2)
    figures = measure(psutil.Process(), client.port, TEXTS * 20, args)
    assert list(figures) == [
        *(f"bare loop, {n} at a time" for n in (1, 64)),
        "service, 1 clients",
        "service, 3 clients",
    ]
    assert all(row["rate"] > 0 for row in figures.values())
    assert figures["service, 3 clients"]["p99"] >= figures["service, 3 clients"]["p50"] > 0
    assert len(render(figures).splitlines()) == 5


def test_a_load_with_refused_requests_is_no_measurement(bundle: Path) -> None:
    served = Served.load(str(bundle), "plain", most=100)
    with serving([served], Limits(rate=1)) as client:
        seen = load(client.port, 2, 0.3, TEXTS)
        assert seen.statuses["429"] > 0
        with pytest.raises(BenchError, match=r"not every request was answered: \{'429': "):
            measure(
                psutil.Process(),
                client.port,
                TEXTS * 20,
                argparse.Namespace(model=bundle, clients=[2], seconds=0.2, repeats=1),
            )


def test_a_service_that_is_gone_is_counted() -> None:
    assert load(1, 1, 0.15, TEXTS).statuses["broken"] >= 1


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"modules.json is missing"):
        parse(["--model", str(tmp_path), "--data", str(tmp_path)], "")
