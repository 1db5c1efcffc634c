"""The labels of a dual encoder's bundle, changed without training: some added by their texts, some taken away.

The files of the bundle stay as they are. The changes are one small file, `label_changes.json`, replaced in one step:

{"labels_sha256": "...", "added": ["a label", ...], "removed": [17, ...]}

Added labels are numbered on from the last line of labels.txt, and no id is ever used again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Unpack, overload

import numpy as np

from dexml.data.files import DataError, atomic_write
from dexml.data.hubfolder import Download
from dexml.hub.bundle import LABELS, Bundle
from dexml.hub.source import bundle_folder
from dexml.index import LabelIndex

CHANGES = "label_changes.json"


@dataclass(frozen=True)
class Changes:
    """What differs from the labels that were exported, whose file has the digest `labels_sha256`."""

    labels_sha256: str
    added: tuple[str, ...] = ()
    removed: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Changes:
        """DataError if the file holds something else."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            changes = cls(kept["labels_sha256"], tuple(kept["added"]), tuple(kept["removed"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} does not hold changes of labels: copy it again, or delete it") from error
        if not {*map(type, changes.added)} <= {str} or not {*map(type, changes.removed)} <= {int}:
            raise DataError(f"{path}: 'added' must be texts and 'removed' ids: copy it again, or delete it")
        return changes

    def write(self, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(self), ensure_ascii=False, indent=0).encode())


class LabelTexts(Sequence[str]):
    """The exported label texts and, after them, the added ones."""

    def __init__(self, exported: Sequence[str], added: list[str]) -> None:
        self.exported, self.added = exported, added

    def __len__(self) -> int:
        return len(self.exported) + len(self.added)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        return self.exported[row] if row < len(self.exported) else self.added[row - len(self.exported)]

    def __iter__(self) -> Iterator[str]:
        yield from self.exported
        yield from self.added


class LabelSet:
    """The labels of `bundle`, which predicts with every change as soon as it is made.

    A change is on disk before it is told, and all of it or nothing is. Changes must not run beside searches: a caller
    with several threads takes turns.
    """

    def __init__(self, bundle: Bundle, path: Path | None = None) -> None:
        """Takes over `bundle` and makes the changes kept in the file `path`; None: they stay in memory.

        Raises:
            DataError: the file is another bundle's, or damaged.
        """
        self.path = path
        self._changes = Changes("" if bundle.index is None else bundle.index.meta.get("sha256", {}).get(LABELS, ""))
        self._texts = LabelTexts(bundle.labels, [])
        self.bundle = replace(bundle, labels=self._texts)
        if path is not None and path.exists():
            self._restore(Changes.read(path), path)

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str | None = None,
        amp: bool = False,
        trust_remote_code: bool = False,
        **download: Unpack[Download],
    ) -> LabelSet:
        """The labels of a bundle with the changes kept in its folder; arguments and errors as of `Bundle.load`."""
        folder = bundle_folder(source, **download)
        return cls(Bundle.read(folder, device, amp, trust_remote_code), folder / CHANGES)

    def __len__(self) -> int:
        return len(self._texts if self.bundle.index is None else self.bundle.index)

    def add(self, texts: Sequence[str]) -> list[int]:
        """Adds labels by their texts and gives their ids.

        Raises:
            DataError: a text is blank, of two lines, given twice or that of a present label, the model has learnt a
                vector for each label instead of reading its text, or the change cannot be kept; nothing was added.
        """
        index, new = self._index(), [text.strip() for text in texts]
        self._check_texts(new)
        ids = list(range(len(self._texts), len(self._texts) + len(new)))
        index.add(self.bundle.encoder.encode(new), ids)
        try:
            self._keep(replace(self._changes, added=(*self._changes.added, *new)))
        except BaseException:
            index.remove(ids)
            raise
        self._texts.added += new
        return ids

    def remove(self, ids: Sequence[int]) -> None:
        """Takes labels away; the others keep their ids.

        Raises:
            DataError: an id is no label's or given twice, or the change cannot be kept; nothing was removed.
        """
        index = self._index()
        gone, counts = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
        wrong = gone[(counts > 1) | ~np.isin(gone, index.ids)]
        if len(wrong):
            raise DataError(f"label {wrong[0]} is not there, or given twice: nothing was removed")
        self._keep(replace(self._changes, removed=(*self._changes.removed, *gone.tolist())))
        index.remove(gone)

    def _index(self) -> LabelIndex:
        """DataError unless the labels can change."""
        if self.bundle.index is None or not self.bundle.labels_are_texts:
            raise DataError("the labels of this model cannot change: it has learnt them one by one, not by their texts")
        return self.bundle.index

    def _restore(self, kept: Changes, path: Path) -> None:
        index, first = self._index(), len(self._texts)
        if kept.labels_sha256 != self._changes.labels_sha256:
            raise DataError(f"{path} holds changes of other labels than this bundle's: delete it, or move it away")
        strange = [i for i in kept.removed if not 0 <= i < first + len(kept.added)]
        if strange:
            raise DataError(f"{path} removes label {strange[0]}, of which there is none: copy it again, or delete it")
        removed = set(kept.removed)
        present = [i for i in range(len(kept.added)) if first + i not in removed]
        vectors = self.bundle.encoder.encode([kept.added[i] for i in present])
        index.remove(sorted(i for i in removed if i < first))
        index.add(vectors, np.array(present, dtype=np.int64) + first)
        self._texts.added += kept.added
        self._changes = kept

    def _keep(self, changes: Changes) -> None:
        if self.path is not None:
            if self.path.exists() and Changes.read(self.path) != self._changes:
                raise DataError(f"{self.path}: another process changed the labels meanwhile: load the bundle again")
            changes.write(self.path)
        self._changes = changes

    def _check_texts(self, new: Sequence[str]) -> None:
        for text in new:
            if not text or "\n" in text:
                raise DataError(f"{text[:40]!r} cannot be a label: a label is one line of text")
        wanted = set(new)
        if len(wanted) < len(new):
            raise DataError(f"{next(text for text in new if new.count(text) > 1)[:40]!r} is given twice")
        same = np.array([i for i, text in enumerate(self._texts) if text in wanted], dtype=np.int64)
        present = same[np.isin(same, self._index().ids)]
        if len(present):
            raise DataError(f"{self._texts[int(present[0])][:40]!r} is a label already: id {present[0]}")
