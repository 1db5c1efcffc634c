"""Reader of DEXML's padded token files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexml.data.files import DataError, sha256
from dexml.data.tokens import Ids, Tokens

BLOCK = 1 << 16  # rows looked at together


class DatStore(Tokens):
    """DEXML's padded file: `.dat` holds rows x columns of int64 or int32, `.dat.meta` the line `rows cols dtype`.

    A row ends at its last id that is not `pad_id`, as the file stores no mask.
    """

    def __init__(self, path: str | Path, pad_id: int) -> None:
        self.path, self.pad_id = Path(path), pad_id
        rows, cols, dtype = _read_meta(self.path)
        self.width = cols
        self._ids = np.memmap(self.path, dtype, "r", 0, (rows, cols)) if rows else np.empty((0, cols), dtype)

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def fingerprint(self) -> str:
        return sha256(self.path)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        blocks = (self._ids[at : at + BLOCK] for at in range(0, len(self), BLOCK))
        return np.concatenate([np.empty(0, np.int64), *(self._row_lengths(b) for b in blocks)]).astype(np.int32)

    def gather(self, rows: NDArray[np.integer]) -> tuple[Ids, Ids]:
        block = self._ids[self._checked(rows)]
        lengths = self._row_lengths(block)
        return block[np.arange(self.width) < lengths[:, None]].astype(np.int64), lengths

    def _row_lengths(self, block: NDArray[np.integer]) -> Ids:
        filled = block != self.pad_id
        return np.where(filled.any(1), self.width - filled[:, ::-1].argmax(1), 0).astype(np.int64)

    def __reduce__(self) -> tuple[type[DatStore], tuple[Path, int]]:
        return DatStore, (self.path, self.pad_id)


def _read_meta(path: Path) -> tuple[int, int, np.dtype]:
    meta = path.with_name(path.name + ".meta")
    if not path.is_file() or not meta.is_file():
        raise DataError(f"{path}: both the file and {meta.name} beside it are needed")
    words = meta.read_text(encoding="utf-8", errors="replace").split()
    if len(words) != 3 or not (words[0].isdecimal() and words[1].isdecimal()) or words[2] not in ("int64", "int32"):
        raise DataError(f"{meta}: expected one line `rows cols dtype` such as `15449 128 int64`")
    rows, cols, dtype = int(words[0]), int(words[1]), np.dtype(words[2]).newbyteorder("<")
    if path.stat().st_size != rows * cols * dtype.itemsize:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes, but its .meta promises {rows} x {cols} {words[2]} = "
            f"{rows * cols * dtype.itemsize} bytes: copy it again, or delete it and tokenise again"
        )
    return rows, cols, dtype
