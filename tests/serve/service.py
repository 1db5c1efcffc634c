"""A small bundle, and the whole service over it on a free port of this machine."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dexml import Encoder, load_config
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.pretrained import build_encoder
from dexml.evaluation.calibration import Calibration
from dexml.hub.bundle import fill_bundle, vectors_writer
from dexml.serve.command import listen
from dexml.serve.limits import Limits
from dexml.serve.run import make_server
from dexml.serve.served import Served
from tests.helpers.models import write_config

TOKEN = "a token of a test"
LABELS = ["red fox", "blue boat", "green tower", "gold lamp", "white cloud", "pink bridge", "<img src=x onerror=boo()>"]
TEXTS = ["the old red fox", "a tower of gold", "view of the lamp", "the boat and the bridge"]


def make_bundle(folder: Path, labels: Sequence[str] = LABELS, calibration: Calibration | None = None) -> Path:
    """A bundle of a small random encoder in `folder`/best."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = load_config([write_config(folder, bottleneck_dim=6)])
    encoder = Encoder(build_encoder(cfg, torch.device("cpu")), load_tokenizer(cfg.tf), cfg.tf_max_len)
    (folder / "best").mkdir()
    fill_bundle(folder / "best", encoder, labels, vectors_writer(encoder.encode(labels)), cfg, calibration)
    return folder / "best"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, content, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def predict(self, text: str, **wanted: Any) -> Any:
        reply = self.ask("POST", "/predict", {"text": text, **wanted})
        assert reply.status == 200, reply.body
        return reply.json


@contextmanager
def serving(models: Sequence[Served], limits: Limits | None = None, token: str | None = TOKEN) -> Iterator[Client]:
    """The service until the block ends."""
    server = make_server(models, limits or Limits(), token)
    place = listen("127.0.0.1", 0)
    port = place.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Client(port)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
