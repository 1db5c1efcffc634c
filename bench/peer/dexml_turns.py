"""How a side of a bench takes its turns: a JSON request a line on stdin, a JSON answer a line on stdout.

Standard library only, because the Python of a peer runs it too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

Handlers = Mapping[str, Callable[..., dict[str, Any]]]


class Turns:
    """The requests of the bench and the answers to them. What libraries print goes to stderr from now on."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def next(self) -> dict[str, Any] | None:
        """Waits for a request {"do": name, **arguments}; None when no more will come."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def answer(self, **found: Any) -> None:
        print(json.dumps(found | {"peak_mb": peak_mb()}), file=self._answers, flush=True)


def serve(start: Callable[[], Handlers]) -> None:
    """Answers each request with what the handler that it names returns; `start` loads the side and returns them."""
    turns = Turns()
    handlers = start()
    while (request := turns.next()) is not None:
        turns.answer(**handlers[request.pop("do")](**request))


def peak_mb() -> float:
    """Peak resident memory of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
