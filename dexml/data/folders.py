"""Folders that are either absent or complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dexml.data.files import DataError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which appears as `folder` only when the block ends without an error.

    DataError if something is there already (an empty folder is taken over) or the place is not writable.
    """
    check_free(folder)
    building = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        building.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made there ({error.strerror}): name a place you may write to") from error
    try:
        yield building
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_free(folder: Path) -> None:
    """DataError unless `folder` is absent or an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name another place, or remove it first")
