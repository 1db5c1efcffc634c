"""Our token file: ragged ids, memory-mapped, written in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dexml.data.dat import DatStore
from dexml.data.files import DataError, atomic_write
from dexml.data.tokens import Ids, OnlineTokens, TokenInfo, Tokens

__all__ = ["DatStore", "Ids", "OnlineTokens", "TokenInfo", "TokenStore", "TokenWriter", "Tokens"]

MAGIC = b"dexmltok"


class TokenStore(Tokens):
    """Ragged ids in one memory-mapped file: 2 bytes a token (4 when the vocabulary needs them), 8 bytes a row.

    File: ids, zeros up to a multiple of 8, offsets (int64, N + 1), JSON description, its length (int64), magic.
    """

    def __init__(self, path: Path, info: TokenInfo, rows: int, tokens: int) -> None:
        self.path, self.info, self.pad_id = path, info, info.pad_id
        self._offsets: Ids = np.memmap(path, np.dtype("<i8"), "r", _aligned(tokens * info.dtype.itemsize), (rows + 1,))
        self._ids = np.memmap(path, info.dtype, "r", 0, (tokens,)) if tokens else np.empty(0, info.dtype)

    @classmethod
    def open(cls, path: str | Path) -> TokenStore:
        """DataError if the file is missing, cut short or no token file."""
        path = Path(path)
        try:
            info, rows, tokens, size = _read_description(path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: not a complete token file ({error}): delete it, it will be made again") from None
        if size != path.stat().st_size:
            raise DataError(f"{path}: {path.stat().st_size} bytes instead of {size}: delete it, it will be made again")
        return cls(path, info, rows, tokens)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def fingerprint(self) -> str:
        return self.info.fingerprint

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        return np.diff(self._offsets).astype(np.int32)

    def gather(self, rows: NDArray[np.integer]) -> tuple[Ids, Ids]:
        rows = self._checked(rows)
        starts = self._offsets[rows]
        lengths: Ids = np.asarray(self._offsets[rows + 1] - starts)
        before = np.cumsum(lengths) - lengths  # tokens of earlier rows of the answer
        where = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
        return self._ids[where].astype(np.int64), lengths

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return TokenStore.open, (self.path,)  # a worker process maps the file itself


class TokenWriter:
    """Writes a TokenStore in one pass, 4 bytes of memory a row; with `open` the file appears only when complete."""

    def __init__(self, file: BinaryIO, info: TokenInfo) -> None:
        self._file, self._info = file, info
        self._lengths: list[NDArray[np.int32]] = []
        self.tokens = 0

    @classmethod
    @contextmanager
    def open(cls, path: str | Path, info: TokenInfo) -> Iterator[TokenWriter]:
        with atomic_write(Path(path)) as file:
            writer = cls(file, info)
            yield writer
            writer._finish()

    def append(self, ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
        """Adds len(lengths) rows whose ids [sum of lengths] stand one after the other."""
        if int(lengths.sum()) != len(ids):
            raise ValueError(f"{len(ids)} ids do not fill rows of {int(lengths.sum())} tokens")
        self._file.write(ids.astype(self._info.dtype).tobytes())
        self._lengths.append(lengths.astype(np.int32))
        self.tokens += len(ids)

    def _finish(self) -> None:
        size = self.tokens * self._info.dtype.itemsize
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths])
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype("<i8")
        text = json.dumps({"version": 1, "rows": len(lengths), "tokens": self.tokens, "info": asdict(self._info)})
        self._file.write(bytes(_aligned(size) - size))
        self._file.write(offsets.tobytes())
        self._file.write(text.encode() + np.array([len(text.encode())], "<i8").tobytes() + MAGIC)


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def _read_description(path: Path) -> tuple[TokenInfo, int, int, int]:
    """Info, rows, tokens and the size in bytes that the whole file must have."""
    with path.open("rb") as file:
        tail = len(MAGIC) + 8
        file.seek(max(0, path.stat().st_size - tail))
        ending = file.read()
        if len(ending) != tail or ending[8:] != MAGIC:
            raise ValueError("its end is missing")
        length = int(np.frombuffer(ending, "<i8", 1)[0])
        file.seek(-tail - length, 2)
        text = json.loads(file.read(length))
    info, rows, tokens = TokenInfo(**text["info"]), int(text["rows"]), int(text["tokens"])
    return info, rows, tokens, _aligned(tokens * info.dtype.itemsize) + 8 * (rows + 1) + length + tail
