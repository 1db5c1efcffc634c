"""Files that one process holds at a time, until it lets go of them or ends, be it by a kill."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


def hold(path: Path, wait: bool = True) -> BinaryIO:
    """The file, made if need be, to append to. Others wait until it is closed, or get a BlockingIOError at once.

    Without locks (some file systems, Windows) nobody is kept out.
    """
    while True:
        file = path.open("a+b")
        try:
            _lock(file, wait)
        except BlockingIOError:
            file.close()
            raise
        if _is_still(path, file):  # else its last holder has finished and deleted it
            return file
        file.close()


def _lock(file: BinaryIO, wait: bool) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        log.info("%s: another process is writing it; waiting", file.name)
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
    except (OSError, ImportError):
        pass


def _is_still(path: Path, file: BinaryIO) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False
