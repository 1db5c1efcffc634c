"""Token ids on their way into a token file: kept on disk batch by batch, so that a killed run goes on where it was."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dexml.data.files import WRITABLE, DataError
from dexml.data.locks import hold
from dexml.data.tokens import TokenInfo

MAGIC = b"dexmlpart"
HEAD = struct.Struct("<qqq")  # rows before, rows, tokens
CHECK = struct.Struct("<I")

Batch = tuple[NDArray[np.unsignedinteger], NDArray[np.int32]]


class PartialTokens:
    """Rows so far, as plain ids in the hidden file `.<name>.part`, and how often each id occurs in them.

    File: magic, fingerprint, then a record a batch: HEAD, lengths (int32), ids (2 or 4 bytes each), CRC-32 of these.
    """

    def __init__(self, file: BinaryIO, info: TokenInfo) -> None:
        """Keeps the whole batches in `file` if they were made for the same `info`, and drops all else it holds."""
        self.info, self.rows, self.tokens = info, 0, 0
        self.counts = np.zeros(info.vocab_size, np.int64)
        self._file, self._start = file, MAGIC + info.fingerprint.encode()
        file.seek(0)
        if file.read(len(self._start)) != self._start:
            file.truncate(0)
            file.write(self._start)
        end = len(self._start)
        for ids, lengths in self.batches():
            self._count(ids, lengths)
            end = file.tell()
        file.truncate(end)

    @classmethod
    @contextmanager
    def open(cls, path: Path, info: TokenInfo) -> Iterator[PartialTokens]:
        """The rows so far of the token file `path`, for one process at a time; deleted when the block ends well."""
        with _locked(path.with_name(f".{path.name}.part")) as file:
            yield cls(file, info)
            Path(file.name).unlink(missing_ok=True)

    def append(self, ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
        """Adds len(lengths) rows whose ids [sum of lengths] stand one after the other."""
        if int(lengths.sum()) != len(ids):
            raise ValueError(f"{len(ids)} ids do not fill rows of {int(lengths.sum())} tokens")
        head = HEAD.pack(self.rows, len(lengths), len(ids))
        record = head + lengths.astype("<i4").tobytes() + ids.astype(self.info.dtype).tobytes()
        self._file.write(record + CHECK.pack(zlib.crc32(record)))
        self._file.flush()  # from here on a kill does not lose it
        self._count(ids, lengths)

    def batches(self) -> Iterator[Batch]:
        """Ids and lengths of every batch, up to the first that is torn or not the next one."""
        size = os.fstat(self._file.fileno()).st_size
        at, found = self._file.seek(len(self._start)), 0
        while len(head := self._file.read(HEAD.size)) == HEAD.size:
            first, rows, tokens = HEAD.unpack(head)
            length = 4 * rows + self.info.dtype.itemsize * tokens
            if first != found or not 0 <= length <= size - at:
                return
            body, check = self._file.read(length), self._file.read(CHECK.size)
            if CHECK.pack(zlib.crc32(body, zlib.crc32(head))) != check:
                return
            yield np.frombuffer(body, self.info.dtype, tokens, 4 * rows), np.frombuffer(body, "<i4", rows)
            at, found = self._file.tell(), found + rows

    def _count(self, ids: NDArray[np.integer], lengths: NDArray[np.integer]) -> None:
        self.counts += np.bincount(ids, minlength=len(self.counts))
        self.rows += len(lengths)
        self.tokens += len(ids)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    try:
        file = hold(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written there ({error.strerror}): {WRITABLE}") from error
    with file:
        yield file
