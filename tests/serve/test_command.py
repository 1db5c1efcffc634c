"""`dexml serve` as a user starts and ends it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from dexml.data.files import DataError
from dexml.serve.command import SETTINGS, listen, named, serve_command
from dexml.serve.command import TOKEN as VARIABLE
from tests.helpers.processes import ROOT
from tests.serve.service import Client, make_bundle

TOKEN = "0123456789abcdef"


def test_models_are_called_by_their_folder_or_run() -> None:
    assert list(named(["Results/X/run/best", "elsewhere/", "user/model"])) == ["run", "elsewhere", "model"]
    assert list(named(["A/run/best", "B/run/best"])) == ["A/run", "B/run"]
    with pytest.raises(DataError, match="two models would be called A/run: rename a folder"):
        named(["A/run", "A/run/best"])


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.setenv(name, "2")  # as a user may
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DataError, match=rf"cannot serve on 127.0.0.1:{port} \(Address already in use\): choose"):
            serve_command(["nowhere", "--port", str(port)])
    with pytest.raises(DataError, match=r"cannot serve on no\.such\.host\.invalid:80"):
        listen("no.such.host.invalid", 80)


def test_answers_are_sent_without_delay() -> None:
    with listen("127.0.0.1", 0) as place:
        assert place.proto == socket.IPPROTO_TCP, "else head and body of an answer are 40 ms apart"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the following arguments are required: MODEL"),
        (["x", "--max-texts", "0"], "--max-texts is 0: expected 1 or more"),
        (["x", "--rate", "nan"], "--rate is nan: expected 0 or more"),
        (["x", "--port", "70000"], "--port is 70000: expected 0 to 65535"),
    ],
)
def test_words_that_make_no_sense_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve_command(words)
    assert told in capsys.readouterr().err


@contextmanager
def started(bundle: Path) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """`dexml serve` in a process of its own."""
    words = [sys.executable, "-m", "dexml.cli", "serve", str(bundle), "--port", "0"]
    environment = {**os.environ, VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"serving {bundle.parent.name} on http://127.0.0.1:")
            yield process, Client(int(line.split("http://127.0.0.1:")[1].split()[0]))
        finally:
            process.kill()


def test_the_service_ends_when_told_and_answers_what_it_has_taken(tmp_path: Path) -> None:
    body = {"texts": ["a fox"] * 256, "k": 7}
    with started(make_bundle(tmp_path)) as (process, client), ThreadPoolExecutor(3) as crowd:
        asked = [crowd.submit(client.ask, "POST", "/predict/batch", body) for _ in range(3)]
        while b"dexml_waiting_items 0.0" in client.ask("GET", "/metrics").body and not asked[0].done():
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        assert [one.result().status for one in asked] == [200] * 3
        assert process.wait(30) == -signal.SIGTERM


def test_labels_survive_a_service_that_is_killed(tmp_path: Path) -> None:
    bundle, bearer = make_bundle(tmp_path), {"authorization": f"Bearer {TOKEN}"}
    with started(bundle) as (process, client):
        assert client.ask("POST", "/labels", {"labels": ["silver spoon"]}, bearer).json["ids"] == [7]
        process.kill()
    with started(bundle) as (_, client):
        assert client.predict("silver spoon", k=1)["labels"][0]["id"] == 7
