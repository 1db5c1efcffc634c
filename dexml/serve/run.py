"""The server around the app: uvicorn on one socket, in one process."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import uvicorn

from dexml.serve.app import make_app
from dexml.serve.limits import Limits
from dexml.serve.protocol import with_deadline
from dexml.serve.served import Served

CONNECTIONS = 1000  # at a time; more are answered 503
HEAD = 16 << 10  # bytes of a request's head
IDLE = 30  # seconds that a connection is kept without a request
GRACE = 20  # seconds that requests have to end when the service is told to


def make_server(models: Sequence[Served], limits: Limits, token: str | None = None) -> uvicorn.Server:
    """A server of these models; `run(sockets=[...])` it."""
    config = uvicorn.Config(
        make_app(models, limits, token),
        http=with_deadline(limits.seconds),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=HEAD,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(config)


def serve(models: Sequence[Served], limits: Limits, token: str | None, place: socket.socket) -> None:
    """Serves on the bound socket until a signal; what was taken is answered first."""
    make_server(models, limits, token).run(sockets=[place])
