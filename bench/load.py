"""Clients of the service: so many connections, each asking again as soon as it has its answer.

    python bench/load.py PORT 8 60 Datasets/Iconclass-KW-en/raw/tst_X.txt     8 connections for 60 seconds

One process and no library: a request costs the client about a tenth of what it costs the service.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Seen:
    """What clients saw in `seconds`."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    """seconds of each request that was answered 200"""
    statuses: Counter[str] = field(default_factory=Counter)
    """answers by status; `broken` counts connections that ended without one"""


def requests(texts: list[str], k: int = 5) -> Iterator[bytes]:
    """POST /predict of each text, over and over."""
    for text in itertools.cycle(texts):
        body = json.dumps({"text": text, "k": k}).encode()
        kind = "host: bench\r\ncontent-type: application/json"
        yield f"POST /predict HTTP/1.1\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def load(port: int, clients: int, seconds: float, texts: list[str]) -> Seen:
    """`clients` connections for so long."""
    return asyncio.run(_load(port, clients, seconds, texts))


async def _load(port: int, clients: int, seconds: float, texts: list[str]) -> Seen:
    seen, todo, begin = Seen(), requests(texts), time.perf_counter()
    await asyncio.gather(*(_client(port, begin + seconds, todo, seen) for _ in range(clients)))
    seen.seconds = time.perf_counter() - begin
    return seen


async def _client(port: int, end: float, todo: Iterator[bytes], seen: Seen) -> None:
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while time.perf_counter() < end:
                await _ask(reader, writer, next(todo), seen)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            seen.statuses["broken"] += 1
            await asyncio.sleep(0.1)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, seen: Seen) -> None:
    begin = time.perf_counter()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    await reader.readexactly(length)
    status = head.split(" ", 2)[1]
    seen.statuses[status] += 1
    if status == "200":
        seen.waits.append(time.perf_counter() - begin)
    else:
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    port, clients, seconds, file = sys.argv[1:]
    texts = Path(file).read_text(encoding="utf-8").splitlines()
    print(json.dumps(load(int(port), int(clients), float(seconds), texts).statuses))
