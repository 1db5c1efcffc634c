"""What a client may send: how often, how much, how slowly. Looked at before anything reads the request.

Answers 429 with Retry-After (too often), 413 (too much), 408 (too slow), 400 (not UTF-8).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
UNLIMITED = ("/health", "/ready", "/metrics")  # asked by those who watch the service
_CLIENTS = 10_000  # remembered before those who have been quiet are forgotten
_DRAIN = 8  # times the limit: what is read and thrown away so that the client gets to read its answer


@dataclass(frozen=True)
class Limits:
    """Defaults of the service."""

    body: int = 1 << 20
    """bytes of a request"""
    texts: int = 256
    """texts, or labels, of a request"""
    chars: int = 20_000
    """characters of a text; a label may have a tenth of it"""
    labels: int = 100
    """labels told of a text"""
    waiting: int = 1024
    """texts that wait"""
    rate: float = 0.0
    """requests a second of one client, 0: no limit"""
    seconds: float = 10.0
    """until a request is there as a whole, its head and its body"""


class Refused(Exception):
    """A request that is not let in."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = JSONResponse({"detail": detail}, status, {"connection": "close", **(headers or {})})


class Gate:
    """ASGI middleware that hands on requests that keep the limits, each with its whole body."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self._free: dict[str, float] = {}  # client -> when its allowance is whole again

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            if scope["path"] not in UNLIMITED:
                self._count(scope)
            body = await self._body(scope, receive)
        except Refused as refused:
            return await refused.response(scope, receive, send)
        sent = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def whole() -> Message:
            return next(sent, None) or await receive()

        await self.app(scope, whole, send)

    def _count(self, scope: Message) -> None:
        """Leaky bucket (GCRA): a second's worth of requests at once, then `rate` a second."""
        if not self.limits.rate:
            return
        client, now = (scope.get("client") or ("",))[0], time.monotonic()
        gap = 1 / self.limits.rate
        free = max(self._free.get(client, now), now)
        late = free + gap - now - max(1.0, gap)
        if late > 0:
            raise Refused(429, "too many requests from your address", {"retry-after": str(math.ceil(late))})
        self._free[client] = free + gap
        if len(self._free) > _CLIENTS:
            self._free = {client: free for client, free in self._free.items() if free > now}

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        body, size, most = bytearray(), 0, self.limits.body
        too_large = Refused(413, f"the request is larger than {most:,} bytes")
        try:
            async with asyncio.timeout(self.limits.seconds):
                more = True
                while more:
                    message = await receive()
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size <= most:
                        body += message.get("body", b"")
                    elif size > _DRAIN * most:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"the request was not complete after {self.limits.seconds:g} s") from None
        if size > most:
            raise too_large
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{body[error.start]:02x} at position {error.start}"
            raise Refused(400, f"the request is not valid UTF-8 ({byte})") from None
        return bytes(body)
