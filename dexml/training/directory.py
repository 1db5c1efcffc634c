"""Directories that are there as a whole or not at all: written aside, flushed to disk, renamed into place.

A manifest with size and SHA-256 of every file tells later whether a directory is still what was written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from dexml.data.files import sha256

MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


def write_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Makes the directory `path` from what `fill` writes; when that fails, `path` stays as it was.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    partial, replaced = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old.tmp")
    for left_behind in (partial, replaced):
        shutil.rmtree(left_behind, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        _write_manifest(partial)
        for written in (*partial.rglob("*"), partial):
            _flush(written)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, SafetensorError):  # how safetensors tells of a full disk
            raise OSError(f"{path}: {error}") from error
        raise
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    _flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(folder)): {"size": p.stat().st_size, "sha256": sha256(p)} for p in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_directory(path: Path) -> None:
    """Deletes a directory; a kill on the way leaves nothing incomplete under its name."""
    doomed = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def verify(path: Path) -> None:
    """Raises CheckpointError unless every file is there as it was written."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = {str(name): (facts["size"], facts["sha256"]) for name, facts in manifest.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no readable {MANIFEST}: not a whole checkpoint") from error
    for name, (size, digest) in expected.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size or sha256(file) != digest:
            raise CheckpointError(f"{file}: missing or changed since it was written; remove {path} to use an older one")
