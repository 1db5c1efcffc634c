"""An index in a folder: `index.json` (what the index is) and the FAISS file that it names.

index.json is replaced last, in one step, so a save killed at any moment leaves the index that was there before. It
holds the digest of the FAISS file, which is read only if that fits.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from dexml.data.files import atomic_write, sha256
from dexml.data.hubfolder import Download, HubError, hub_folder
from dexml.index.kinds import KINDS, check_kind
from dexml.index.rows import LabelIndexError, nested

FORMAT = "dexml-label-index"
VERSION = 2  # 1 had flat indexes only, without digest and parameters
MANIFEST = "index.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DATA_NAME = re.compile(r"vectors-(\d+)\.faiss")


def index_folder(source: Path, **download: Unpack[Download]) -> Path:
    """The folder of an index: `source` itself, `index/` in a bundle, or that of a bundle on the Hub."""
    if not source.exists() and HUB_ID.fullmatch(str(source)):
        try:
            return hub_folder(str(source), ["index/*"], **download) / "index"
        except HubError as error:
            raise LabelIndexError(f"{source}: no such folder here, and none from the Hub: {error}") from error
    return source if (source / MANIFEST).exists() or not (source / "index").is_dir() else source / "index"


def write_folder(folder: Path, index: Any, facts: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write a FAISS index with what is known about it, replacing the index that is there."""
    import faiss

    check_meta(meta)
    folder.mkdir(parents=True, exist_ok=True)
    previous = {int(name[1]): path for path in folder.iterdir() if (name := _DATA_NAME.fullmatch(path.name))}
    data = folder / f"vectors-{max(previous, default=0) + 1:06d}.faiss"
    with atomic_write(data) as file:
        try:
            faiss.write_index(index, file.name)
        except RuntimeError as error:
            raise LabelIndexError(f"{data} cannot be written: is the disk full?") from error
    manifest = {
        **{"format": FORMAT, "version": VERSION, **facts},
        **{"file": data.name, "bytes": data.stat().st_size, "sha256": sha256(data), "meta": dict(meta)},
    }
    with atomic_write(folder / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
    for stale in previous.values():
        stale.unlink(missing_ok=True)


def read_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The FAISS index and the manifest; LabelIndexError for a missing, foreign or cut file.

    Read again where another process has replaced the index meanwhile.
    """
    manifest = _read_manifest(folder / MANIFEST)
    while True:
        try:
            return _read_faiss(folder / manifest["file"], manifest), manifest
        except (LabelIndexError, FileNotFoundError):
            before, manifest = manifest, _read_manifest(folder / MANIFEST)
            if manifest == before:
                raise


def check_meta(meta: Mapping[str, Any]) -> None:
    """LabelIndexError unless `meta` comes back the same from JSON."""
    try:
        same = json.loads(json.dumps(dict(meta))) == dict(meta)
    except (TypeError, ValueError) as error:
        raise LabelIndexError(f"meta must be JSON: {error}") from error
    if not same:
        raise LabelIndexError("meta would not come back the same from JSON: use text keys, lists for tuples, no NaN")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabelIndexError(f"{path} is missing: is this a label index folder?") from error
    except ValueError as error:
        raise LabelIndexError(f"{path} is not JSON ({error}): build the index again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise LabelIndexError(f"{path} does not describe a label index (format is not {FORMAT!r})")
    if manifest.get("version") not in (1, VERSION):
        raise LabelIndexError(f"{path}: version {manifest.get('version')!r}, this dexml reads 1 to {VERSION}")
    check_kind(manifest.get("kind"), f"in {path}")
    name, size, meta = manifest.get("file"), manifest.get("bytes"), manifest.get("meta")
    if not isinstance(name, str) or Path(name).name != name or not isinstance(size, int) or not isinstance(meta, dict):
        raise LabelIndexError(f"{path}: 'file' (a plain name), 'bytes' (a number) or 'meta' (an object) is missing")
    return manifest


def _read_faiss(path: Path, manifest: Mapping[str, Any]) -> Any:
    import faiss

    if not path.is_file():
        raise LabelIndexError(f"{path} is missing: {MANIFEST} names it, copy the whole folder")
    size = path.stat().st_size
    if size != manifest["bytes"]:
        raise LabelIndexError(f"{path} has {size} bytes, {MANIFEST} says {manifest['bytes']}: was a copy cut short?")
    if manifest["version"] > 1 and sha256(path) != manifest.get("sha256"):
        raise LabelIndexError(f"{path} is not the file that {MANIFEST} was written for: copy the whole folder")
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise LabelIndexError(f"{path} is not a FAISS index that can be read: build it again") from error
    _check_faiss(path, index, manifest["kind"])
    return index


def _check_faiss(path: Path, index: Any, kind: str) -> None:
    import faiss

    for part in nested(index):
        if part.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise LabelIndexError(
                f"{path}: its {type(part).__name__} was built for L2, scores here are inner products: build it again"
            )
        if part.d != index.d or not part.is_trained:
            raise LabelIndexError(f"{path}: its {type(part).__name__} is not trained, or of another width")
    if KINDS[kind].read(index) is None:
        held = " in ".join(type(part).__name__ for part in reversed(nested(index)))
        raise LabelIndexError(f"{path} is {held}, not the FAISS index with label ids of kind {kind!r}: build it again")
