"""What Prometheus reads at /metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from dexml.serve.limits import App, Message, Receive, Send

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept: Any = {"namespace": "dexml", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ("route", "method", "status"), **kept)
        self.seconds = Histogram("request_seconds", "From head to answer.", ("route",), buckets=_SECONDS, **kept)
        self.batch = Histogram("batch_items", "Texts computed in one call.", buckets=_ITEMS, **kept)
        self.compute = Histogram("compute_seconds", "Of one call.", buckets=_SECONDS, **kept)
        self.labels = Gauge("labels", "Labels of a model.", ("model",), **kept)
        self._waiting = Gauge("waiting_items", "Texts that wait or are computed.", **kept)
        ProcessCollector(registry=self.registry)

    def computed(self, items: int, seconds: float) -> None:
        """Of one call of the computing thread."""
        self.batch.observe(items)
        self.compute.observe(seconds)

    def follow(self, waiting: Callable[[], int]) -> None:
        """Where to read how much waits."""
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """In the format that Prometheus scrapes."""
        return generate_latest(self.registry)


class Counted:
    """ASGI middleware that counts every answer, under the route's path and not the client's, which has no bounds."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, begin = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, scope["method"], status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begin)
