"""The project's log: short lines on the terminal of rank 0, dated lines in the folder of the run."""

from __future__ import annotations

import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

HELD_LINES = 10_000


class Terminal(logging.Handler):
    """Looks up stderr at every line, so that a progress bar can move out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        print(kind + self.format(record), file=sys.stderr, flush=True)


def start_log(speak: bool) -> None:
    """Sends the project's log to the terminal; ranks that do not `speak` show errors only.

    Lines are also held for the file that `log_to` names once the folder of the run is known to be good.
    """
    root = logging.getLogger("dexml")
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG if speak else logging.ERROR)
    root.propagate = False
    terminal = Terminal(logging.INFO)
    root.addHandler(terminal)
    root.addHandler(MemoryHandler(HELD_LINES, flushLevel=logging.CRITICAL + 1, flushOnClose=False))


def log_to(path: Path) -> None:
    """Sends the project's log to a file, too, from its first line on."""
    root = logging.getLogger("dexml")
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for held in [handler for handler in root.handlers if isinstance(handler, MemoryHandler)]:
        held.setTarget(file)
        held.flush()
        root.removeHandler(held)
    root.addHandler(file)
