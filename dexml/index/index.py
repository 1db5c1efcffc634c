"""LabelIndex: label embeddings with stable label ids, searched exactly by inner product, kept in a folder.

A folder holds `index.json` (what the index is) and the FAISS file that it names. index.json is replaced last, in one
step, so a save killed at any moment leaves the index that was there before.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dexml.index.search import Ids, Scores, as_embeddings, search_flat

KINDS = ("flat",)
_FORMAT = "dexml-label-index"
_VERSION = 1
_MANIFEST = "index.json"
_DATA_NAME = re.compile(r"vectors-(\d+)\.faiss")


class LabelIndexError(ValueError):
    """An index that cannot be built, changed or loaded as asked."""


class LabelIndex:
    """Label embeddings [count, width] under ids >= 0 that stay the same when others are added or removed."""

    def __init__(self, faiss_index: Any, kind: str, meta: Mapping[str, Any]) -> None:
        """Used by `build` and `load`: takes an inner-product IndexIDMap2."""
        self._index = faiss_index
        self._sorted_ids = np.sort(_ids_of(faiss_index))
        self.kind = kind
        self.meta = dict(meta)

    @classmethod
    def build(
        cls,
        embeddings: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
        kind: str = "flat",
        meta: Mapping[str, Any] | None = None,
    ) -> "LabelIndex":
        """Index embeddings [S, D]; ids [S] default to 0..S-1; `meta` is any JSON, such as the encoder's fingerprint."""
        import faiss

        _check_kind(kind, "asked for")
        _check_meta(meta or {})
        label_SD = as_embeddings(embeddings, "embeddings")
        index = cls(faiss.IndexIDMap2(faiss.IndexFlatIP(label_SD.shape[1])), kind, meta or {})
        index.add(label_SD, np.arange(len(label_SD)) if ids is None else ids)
        return index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """Embedding width D."""
        return int(self._index.d)

    @property
    def ids(self) -> Ids:
        """The label ids held, ascending, int64 [count]."""
        return self._sorted_ids.copy()

    def search(self, queries: npt.ArrayLike, k: int) -> tuple[Ids, Scores]:
        """Exact best k of queries [N, D]: ids int64, scores float32 [N, k]; ties by smaller id, -1 / -inf pads."""
        return search_flat(self._index, queries, k)

    def add(self, embeddings: npt.ArrayLike, ids: npt.ArrayLike) -> None:
        """Add embeddings [M, D] under new ids [M]; LabelIndexError for a negative, repeated or known id."""
        label_MD = as_embeddings(embeddings, "embeddings")
        if label_MD.shape[1] != self.width:
            raise LabelIndexError(f"embeddings have width {label_MD.shape[1]}, the index {self.width}")
        new_ids = _as_ids(ids, len(label_MD))
        held = new_ids[np.isin(new_ids, self._sorted_ids)]
        if len(held):
            raise LabelIndexError(f"{len(held)} ids are in the index already ({_some(held)}): remove them first")
        self._index.add_with_ids(label_MD, new_ids)
        self._sorted_ids = np.sort(np.concatenate([self._sorted_ids, new_ids]))

    def remove(self, ids: npt.ArrayLike) -> None:
        """Remove the labels `ids` [M]; the others keep their ids. LabelIndexError for a repeated or unknown id."""
        gone = _as_ids(ids, np.size(ids))
        unknown = gone[~np.isin(gone, self._sorted_ids)]
        if len(unknown):
            raise LabelIndexError(f"{len(unknown)} ids are not in the index ({_some(unknown)}): nothing was removed")
        self._index.remove_ids(gone)
        self._sorted_ids = np.setdiff1d(self._sorted_ids, gone, assume_unique=True)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write into `folder`, replacing an index that is there; it stays loadable at every moment."""
        import faiss

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        _check_meta(self.meta)
        previous = {int(name[1]): path for path in target.iterdir() if (name := _DATA_NAME.fullmatch(path.name))}
        data = target / f"vectors-{max(previous, default=0) + 1:06d}.faiss"
        partial = data.with_suffix(".tmp")
        faiss.write_index(self._index, str(partial))
        partial.replace(data)
        manifest = {**self._facts(), "file": data.name, "bytes": data.stat().st_size, "meta": self.meta}
        _write_json(target / _MANIFEST, manifest)
        for stale in previous.values():
            stale.unlink(missing_ok=True)

    def _facts(self) -> dict[str, Any]:
        checksum = hashlib.sha256(_ids_of(self._index).astype("<i8").tobytes()).hexdigest()
        facts = {"format": _FORMAT, "version": _VERSION, "kind": self.kind, "metric": "inner_product"}
        return {**facts, "width": self.width, "count": len(self), "ids_sha256": checksum}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "LabelIndex":
        """Read what `save` wrote; LabelIndexError for a missing, foreign, cut or contradicting file."""
        source = Path(folder)
        manifest = _read_manifest(source / _MANIFEST)
        index = cls(_read_faiss(source / manifest["file"], manifest["bytes"]), manifest["kind"], manifest["meta"])
        for key, value in index._facts().items():
            if manifest.get(key) != value:
                raise LabelIndexError(
                    f"{source / manifest['file']}: {key} is {value!r}, {_MANIFEST} says {manifest.get(key)!r}: "
                    "the two files do not belong together, build the index again"
                )
        return index


def _ids_of(faiss_index: Any) -> Ids:
    import faiss

    return np.asarray(faiss.vector_to_array(faiss_index.id_map), dtype=np.int64)


def _as_ids(ids: npt.ArrayLike, count: int) -> Ids:
    given = np.asarray(ids)
    if given.shape != (count,) or (given.dtype.kind not in "iu" and count):
        raise LabelIndexError(f"ids must be {count} integers in one row, not {given.dtype} {given.shape}")
    array = given.astype(np.int64)
    if (array < 0).any():
        raise LabelIndexError(f"id {int(array.min())} is negative: -1 stands for 'no label' in results")
    values, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise LabelIndexError(f"{int((counts > 1).sum())} ids are given twice ({_some(values[counts > 1])})")
    return array


def _some(ids: Ids) -> str:
    return ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")


def _check_kind(kind: Any, source: str) -> None:
    if kind not in KINDS:
        raise LabelIndexError(f"index kind {kind!r} {source}; available: {', '.join(KINDS)}")


def _check_meta(meta: Mapping[str, Any]) -> None:
    try:
        same = json.loads(json.dumps(dict(meta))) == dict(meta)
    except (TypeError, ValueError) as error:
        raise LabelIndexError(f"meta must be JSON: {error}") from error
    if not same:
        raise LabelIndexError("meta would not come back the same from JSON: use text keys, lists for tuples, no NaN")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".json.tmp")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabelIndexError(f"{path} is missing: is this a label index folder?") from error
    except ValueError as error:
        raise LabelIndexError(f"{path} is not JSON ({error}): build the index again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise LabelIndexError(f"{path} does not describe a label index (format is not {_FORMAT!r})")
    if manifest.get("version") != _VERSION:
        raise LabelIndexError(f"{path}: version {manifest.get('version')!r}, this dexml reads {_VERSION}")
    _check_kind(manifest.get("kind"), f"in {path}")
    name, size, meta = manifest.get("file"), manifest.get("bytes"), manifest.get("meta")
    if not isinstance(name, str) or Path(name).name != name or not isinstance(size, int) or not isinstance(meta, dict):
        raise LabelIndexError(f"{path}: 'file' (a plain name), 'bytes' (a number) or 'meta' (an object) is missing")
    return manifest


def _read_faiss(path: Path, size: int) -> Any:
    import faiss

    if not path.is_file():
        raise LabelIndexError(f"{path} is missing: {_MANIFEST} names it, copy the whole folder")
    if path.stat().st_size != size:
        raise LabelIndexError(f"{path} has {path.stat().st_size} bytes, {_MANIFEST} says {size}: was a copy cut short?")
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise LabelIndexError(f"{path} is not a FAISS index that can be read: build it again") from error
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise LabelIndexError(f"{path} was built for L2, scores here are inner products: build it again")
    if not isinstance(index, faiss.IndexIDMap2) or not isinstance(faiss.downcast_index(index.index), faiss.IndexFlat):
        raise LabelIndexError(f"{path} is a {type(index).__name__}, not a flat index with label ids: build it again")
    return index
