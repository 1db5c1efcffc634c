"""The error of the data room, and files that are either absent or complete."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

WRITABLE = "make the folder writable, or use a copy of it"


class DataError(ValueError):
    """Something in the user's data is wrong; the message names the file, the line or count, and the mend."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that appears under `path` only when the block ends without an error."""
    # A name of its own for every writer: two runs that build the same file must not write into one another.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        file = partial.open("xb")
    except OSError as error:
        raise DataError(f"{path}: cannot be written there ({error.strerror}): {WRITABLE}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Gives a file a second name, or makes a copy where the disk has no hard links; `target` appears as a whole."""
    partial = target.with_name(f".{target.name}.tmp")
    partial.unlink(missing_ok=True)
    try:
        partial.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)
    partial.unlink(missing_ok=True)  # of two names of one file a rename leaves both


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
