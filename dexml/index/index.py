"""LabelIndex: label embeddings with stable label ids, searched by inner product, kept in a folder."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from dexml.data.hubfolder import Download
from dexml.index.folder import MANIFEST, check_meta, index_folder, read_folder, write_folder
from dexml.index.kinds import KINDS, Parameters, check_kind, settle
from dexml.index.rows import LabelIndexError
from dexml.index.search import Find, Ids, Scores, Source, as_embeddings, search_blocks

_GPU_PLACES = 2048  # the most labels that FAISS finds on a GPU


class LabelIndex:
    """Label embeddings [count, width] under ids >= 0 that stay the same when others are added or removed.

    `kind` is flat (exact), fp16, sq8, pq, ivf, ivfpq or hnsw: see docs/index.md.
    """

    def __init__(self, faiss_index: Any, kind: str, meta: Mapping[str, Any]) -> None:
        """Used by `build` and `load`: takes a FAISS index as `KINDS[kind].make` gives it."""
        self._index = faiss_index
        self._kind = KINDS[kind]
        self._sorted_ids = np.sort(self._kind.ids(faiss_index))
        self._gpu: Any = None
        self._wants_gpu = False
        self.kind = kind
        self.meta = dict(meta)

    @classmethod
    def build(
        cls,
        embeddings: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
        kind: str = "flat",
        meta: Mapping[str, Any] | None = None,
        **parameters: Unpack[Parameters],
    ) -> "LabelIndex":
        """Index embeddings [S, D]; ids [S] default to 0..S-1; the order of the labels does not matter.

        Args:
            meta: any JSON, such as the encoder's fingerprint; saved with the index.
            parameters: of the kind, see `dexml.index.kinds.MEANINGS`; defaults follow S and D.
        Raises:
            LabelIndexError: unknown kind or parameter, too few labels for what the kind learns, unusable ids or meta.
        """
        check_kind(kind, "asked for")
        check_meta(meta or {})
        label_SD = as_embeddings(embeddings, "embeddings")
        label_ids = _as_ids(np.arange(len(label_SD)) if ids is None else ids, len(label_SD))
        if (np.diff(label_ids) < 0).any():
            order = np.argsort(label_ids)
            label_SD, label_ids = label_SD[order], label_ids[order]
        settled = settle(kind, label_SD, parameters)
        faiss_index = KINDS[kind].make(label_SD.shape[1], settled)
        if not faiss_index.is_trained:
            KINDS[kind].train(faiss_index, label_SD)
        index = cls(faiss_index, kind, meta or {})
        index.add(label_SD, label_ids)
        return index

    @classmethod
    def from_shards(
        cls,
        shards: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]],
        kind: str = "flat",
        meta: Mapping[str, Any] | None = None,
        **parameters: Unpack[Parameters],
    ) -> "LabelIndex":
        """As `build`, from (ids [S_i], embeddings [S_i, D]) of every shard in any order: the same index for any
        sharding. Holds all embeddings at once."""
        parts = [(_as_ids(ids, len(np.asarray(rows))), as_embeddings(rows, "embeddings")) for ids, rows in shards]
        widths = {rows.shape[1] for _, rows in parts}
        if len(widths) != 1:
            raise LabelIndexError(f"the shards have widths {sorted(widths)}: one width, and at least one shard")
        ids, rows = (np.concatenate(side) for side in zip(*parts, strict=True))
        return cls.build(rows, ids, kind, meta, **parameters)

    def __len__(self) -> int:
        return len(self._sorted_ids)

    @property
    def width(self) -> int:
        """Embedding width D."""
        return int(self._index.d)

    @property
    def ids(self) -> Ids:
        """The label ids held, ascending, int64 [count]."""
        return self._sorted_ids.copy()

    @property
    def parameters(self) -> dict[str, int]:
        """The parameters of the kind."""
        return self._kind.read(self._index) or {}

    @property
    def lossless(self) -> bool:
        """Whether the vectors are kept as they were given (flat, ivf, hnsw)."""
        return self._kind.lossless

    @property
    def nbytes(self) -> int:
        """Bytes of the FAISS file that `save` writes."""
        import faiss

        sizes: list[int] = []
        typed: Any = faiss  # its type stubs lack the writer
        faiss.write_index(self._index, typed.PyCallbackIOWriter(lambda data: sizes.append(len(data))))
        return sum(sizes)

    def vectors(self) -> Scores:
        """The embeddings [count, D] in the order of `ids`, as the index keeps them."""
        return self._kind.vectors(self._index, self._sorted_ids)

    def search(self, queries: npt.ArrayLike, k: int, block: int = 1024) -> tuple[Ids, Scores]:
        """Best k of queries [N, D], `block` queries at a time: ids int64, scores float32 [N, k].

        Ties by smaller id, -1 / -inf pads. Exact for the flat kind; fp16, sq8 and pq rank all labels by rounded
        vectors; ivf, ivfpq and hnsw see some of the labels and may find fewer than k.
        """
        source = Source(self._finder(), len(self), self.width, self._kind.exhaustive)
        return search_blocks(source, queries, k, block)

    def add(self, embeddings: npt.ArrayLike, ids: npt.ArrayLike) -> None:
        """Add embeddings [M, D] under new ids [M]; LabelIndexError for a negative, repeated or known id."""
        label_MD = as_embeddings(embeddings, "embeddings")
        if label_MD.shape[1] != self.width:
            raise LabelIndexError(f"embeddings have width {label_MD.shape[1]}, the index {self.width}")
        new_ids = _as_ids(ids, len(label_MD))
        held = new_ids[np.isin(new_ids, self._sorted_ids)]
        if len(held):
            raise LabelIndexError(f"{len(held)} ids are in the index already ({_some(held)}): remove them first")
        self._kind.accept(self._index, label_MD)
        self._index.add_with_ids(label_MD, new_ids)
        self._sorted_ids = np.sort(np.concatenate([self._sorted_ids, new_ids]))
        self._gpu = None

    def remove(self, ids: npt.ArrayLike) -> None:
        """Remove the labels `ids` [M]; the others keep their ids. LabelIndexError for a repeated or unknown id."""
        gone = _as_ids(ids, np.size(ids))
        unknown = gone[~np.isin(gone, self._sorted_ids)]
        if len(unknown):
            raise LabelIndexError(f"{len(unknown)} ids are not in the index ({_some(unknown)}): nothing was removed")
        self._index = self._kind.remove(self._index, gone)
        self._sorted_ids = np.setdiff1d(self._sorted_ids, gone, assume_unique=True)
        self._gpu = None

    @property
    def knob(self) -> str:
        """The parameter that buys recall for time: nprobe, efSearch, or '' where there is none."""
        return self._kind.knob

    def knob_range(self, k: int) -> tuple[int, int]:
        """Its least and largest useful value for k labels."""
        return self._kind.knob_range(self._index, k)

    def set_knob(self, value: int) -> None:
        """Search with `knob` at `value` from now on; kept by `save`."""
        self._kind.set_knob(self._index, value)
        self._gpu = None

    def to_gpu(self) -> bool:
        """Search on all GPUs from now on, if FAISS sees any and the kind is flat or ivf; returns whether it does.

        The index itself stays on the CPU, where it is changed and saved.
        """
        import faiss

        self._wants_gpu = self._kind.on_gpu and hasattr(faiss, "index_cpu_to_all_gpus") and faiss.get_num_gpus() > 0
        return self._wants_gpu

    def _finder(self) -> Find:
        import faiss

        on_cpu = self._kind.finder(self._index, len(self))
        if not self._wants_gpu:
            return on_cpu
        if self._gpu is None:
            self._gpu = faiss.index_cpu_to_all_gpus(self._index)
        on_gpu = self._gpu.search
        return lambda query_ND, fetch: (on_gpu if fetch <= _GPU_PLACES else on_cpu)(query_ND, fetch)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write into `folder`, replacing an index that is there; it stays loadable at every moment."""
        write_folder(Path(folder), self._index, self._facts(), self.meta)

    def _facts(self) -> dict[str, Any]:
        checksum = hashlib.sha256(self._kind.ids(self._index).astype("<i8").tobytes()).hexdigest()
        facts = {"kind": self.kind, "metric": "inner_product", "parameters": self.parameters}
        return {**facts, "width": self.width, "count": len(self), "ids_sha256": checksum}

    @classmethod
    def load(cls, source: str | os.PathLike[str], **download: Unpack[Download]) -> "LabelIndex":
        """Read what `save` wrote, from its folder, a bundle or a bundle's Hub id.

        Args:
            download: revision, token, cache_dir, local_files_only, for a Hub id.
        Raises:
            LabelIndexError: a missing, foreign, cut or contradicting file.
        """
        folder = index_folder(Path(source), **download)
        faiss_index, manifest = read_folder(folder)
        index = cls(faiss_index, manifest["kind"], manifest["meta"])
        for key, value in index._facts().items():
            if manifest.get(key, {} if manifest["version"] == 1 else None) != value:
                raise LabelIndexError(
                    f"{folder / manifest['file']}: {key} is {value!r}, {MANIFEST} says {manifest.get(key)!r}: "
                    "the two files do not belong together, build the index again"
                )
        return index


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
