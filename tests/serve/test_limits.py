"""What the network may send, and what must not break the service."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dexml.serve.limits import Limits
from dexml.serve.served import Query, Served
from tests.serve.service import Client, serving

SMALL = Limits(body=20_000, texts=4, chars=500, labels=5, waiting=8, seconds=0.6)


@pytest.fixture(scope="module")
def small(models: list[Served]) -> Iterator[Client]:
    with serving(models, SMALL) as client:
        yield client


@pytest.fixture(autouse=True)
def alive(small: Client) -> Iterator[None]:
    """Whatever a test did, the service answers afterwards."""
    yield
    assert small.ask("GET", "/ready").json == {"status": "ready"}
    assert len(small.predict("a fox", k=2)["labels"]) == 2


def test_too_much_is_refused(small: Client) -> None:
    for path, body, status, told in (
        ("/predict", {"text": "x" * 501}, 422, "the text has 501 characters: at most 500"),
        ("/predict", {"text": "x", "k": 6}, 422, "k is 6: at most 5 here"),
        ("/predict/batch", {"texts": ["x"] * 5}, 422, "5 texts: at most 4 a request"),
        ("/predict", {"text": "x" * 20_000}, 413, "the request is larger than 20,000 bytes"),
    ):
        reply = small.ask("POST", path, body)
        assert (reply.status, reply.json) == (status, {"detail": told})


def test_a_client_that_sends_far_too_much_is_cut_off_with_an_answer(small: Client) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n")
        sent = 0
        try:
            while sent < 100_000_000:
                sent += line.send(b"x" * 65536)
        except OSError:
            pass
        assert sent < 20_000_000, "the service stopped reading"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[" * 9000, 400),
        (b'{"text": ' + b"[" * 9000 + b"]" * 9000 + b"}", 400),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 400),
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "\xed\xa0\x80"}', 400),
        (b'{"text": "\\ud800"}', 422),
        (b'{"\\ud800": 1, "text": "a"}', 422),
        (b'{"text": "a", "model": "\\udfff"}', 422),
        (b'{"text": "a", "k": NaN}', 422),
        (b'{"text": "a", "k": 1e999}', 422),
        (b'{"text": "a", "k": ' + b"9" * 5000 + b"}", 400),
        (b'{"text": "a", "k": ' + b"9" * 4000 + b"}", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"\x00" * 100, 422),
    ],
)
def test_a_body_that_makes_no_sense_is_answered_not_crashed_on(small: Client, body: bytes, status: int) -> None:
    reply = small.ask("POST", "/predict", body)
    assert reply.status in (400, 422)
    assert reply.status == status
    assert reply.json["detail"]


@pytest.mark.parametrize(
    "text", ["\x00", "\u2028", "🦊" * 100, "\u202e fox", "a\r\nb", "\ufeff x", "<script>", "'; --"]
)
def test_any_text_is_a_text(small: Client, text: str) -> None:
    assert len(small.predict(f"{text} fox", k=2)["labels"]) == 2


def test_bytes_that_are_no_http_are_refused(small: Client) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 40_000):
        with socket.create_connection(("127.0.0.1", small.port), timeout=10) as line:
            line.sendall(sent)
            assert line.recv(100).startswith(b"HTTP/1.1 400") or sent[0] == 0x16


def drip(port: int, first: bytes, piece: bytes) -> tuple[float, bytes]:
    """Sends a piece every 50 ms until the service ends the connection: after how long, and what it said."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        begin, said = time.monotonic(), b""
        line.sendall(first)
        line.setblocking(False)
        while time.monotonic() < begin + 10:
            time.sleep(0.05)
            try:
                line.send(piece)
                said += (more := line.recv(1000))
                if not more:
                    break
            except BlockingIOError:
                continue
            except OSError:
                break
        return time.monotonic() - begin, said


@pytest.mark.parametrize(
    ("first", "piece", "answer"),
    [
        (b"", b"", b""),
        (b"G", b"", b""),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n", b""),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"G", b"HTTP/1.1 200"),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n", b" ", b"HTTP/1.1 408"),
        (b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"HTTP/1.1 408"),
    ],
)
def test_a_client_that_drips_is_sent_away(small: Client, first: bytes, piece: bytes, answer: bytes) -> None:
    seconds, said = drip(small.port, first, piece)
    assert seconds < 5
    assert said.startswith(answer)


def test_many_slow_clients_do_not_hold_up_a_quick_one(small: Client) -> None:
    lines = [socket.create_connection(("127.0.0.1", small.port), timeout=10) for _ in range(100)]
    try:
        for line in lines:
            line.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n")
        assert small.predict("a fox", k=1)["labels"]
    finally:
        for line in lines:
            line.close()


def test_clients_that_vanish_do_no_harm(small: Client) -> None:
    body = json.dumps({"text": "a fox"}).encode()
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", small.port), timeout=10) as line:
            line.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


class Slow(Served):
    """Computes when it may."""

    go = threading.Event()

    def answer(self, queries: Any) -> Any:
        self.go.wait(20)
        return super().answer(queries)


def test_overload_is_answered_429_and_passes(models: list[Served]) -> None:
    slow = Slow("slow", models[0].labels, most=5)
    with serving([slow], SMALL) as client, ThreadPoolExecutor(30) as crowd:
        asked = [crowd.submit(client.ask, "POST", "/predict", {"text": "a fox"}) for _ in range(30)]
        while sum(one.done() for one in asked) < 22:
            time.sleep(0.02)
        assert client.ask("GET", "/health").status == 200, "the loop does not wait for the computing thread"
        assert b"dexml_waiting_items 8.0" in client.ask("GET", "/metrics").body
        slow.go.set()
        replies = [one.result() for one in asked]
        assert sorted(reply.status for reply in replies) == [200] * 8 + [429] * 22
        refused = next(reply for reply in replies if reply.status == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["detail"].startswith("too many requests: try again in")
        assert client.ask("POST", "/predict", {"text": "a fox"}).status == 200


def test_a_client_that_asks_too_often_is_told_when_to_come_back(models: list[Served]) -> None:
    with serving(models, Limits(rate=2)) as client:
        statuses = [client.ask("POST", "/predict", {"text": "a fox"}).status for _ in range(6)]
        assert statuses[:2] == [200, 200]
        assert 429 in statuses[2:]
        assert client.ask("POST", "/predict", {"text": "a fox"}).headers.get("retry-after") in (None, "1")
        assert [client.ask("GET", path).status for path in ("/health", "/ready", "/metrics")] == [200] * 3


def test_requests_under_way_are_answered_when_the_service_is_told_to_end(models: list[Served]) -> None:
    class Slower(Slow):
        go = threading.Event()

    slow, pool = Slower("slow", models[0].labels, most=5), ThreadPoolExecutor(3)
    with serving([slow], SMALL) as client:
        asked = [pool.submit(client.ask, "POST", "/predict", {"text": "a fox"}) for _ in range(3)]
        time.sleep(0.3)
        threading.Timer(0.5, slow.go.set).start()
    assert [one.result().status for one in asked] == [200] * 3
    assert slow.answer([Query("a fox", 1)])


def test_figures_are_counted(small: Client) -> None:
    small.ask("GET", "/nowhere/12345")
    small.ask("POST", "/predict", b"{")
    text = small.ask("GET", "/metrics").body.decode()
    for line in (
        'dexml_requests_total{method="GET",route="other",status="404"}',
        'dexml_requests_total{method="POST",route="/predict",status="422"}',
        'dexml_request_seconds_count{route="/predict"}',
        "dexml_batch_items_sum",
        'dexml_labels{model="plain"} 7.0',
    ):
        assert line in text
    assert "12345" not in text
