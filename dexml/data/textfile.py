"""One text a line, read lazily: a memory map and the byte offset of every line."""

from __future__ import annotations

import codecs
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dexml.data.files import DataError

BLOCK = 16 << 20  # bytes scanned at a time


class Lines(Sequence[str]):
    """The stripped lines of a UTF-8 file, 8 bytes of memory each; DataError names file and line if it is not UTF-8.

    Only a newline ends a line: U+2028, vertical tab and the like stay inside it. A byte-order mark is dropped.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        self._data = _map(self.path)
        self._starts = _line_starts(self._data)
        _check_utf8(self.path, self._data, self._starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.read(np.arange(*index.indices(len(self))))
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"line {index} of {len(self)} in {self.path}")
        return self._line(int(self._starts[row]), int(self._starts[row + 1]))

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), 4096):
            yield from self[first : first + 4096]

    def read(self, rows: Iterable[int] | NDArray[np.integer]) -> list[str]:
        """The texts of these rows (0-based, none negative), in the order asked for."""
        ids = np.fromiter(rows, dtype=np.int64) if not isinstance(rows, np.ndarray) else rows
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self):
            raise IndexError(f"rows {ids.min()}..{ids.max()} of {len(self)} lines in {self.path}")
        begins, ends = self._starts[ids].tolist(), self._starts[ids + 1].tolist()
        return [self._line(begin, end) for begin, end in zip(begins, ends, strict=True)]

    def blank(self) -> NDArray[np.int64]:
        """Rows that are empty once stripped, ascending."""
        begins, ends = self._starts[:-1], self._starts[1:] - 1
        if not len(begins):
            return np.empty(0, np.int64)
        # Only a line that starts with white space (ASCII, or a lead byte of the wider kinds) can be blank.
        bytes_ = np.frombuffer(self._data, np.uint8)
        first = bytes_[np.minimum(begins, len(bytes_) - 1)]
        maybe = (begins == ends) | (first <= 32) | np.isin(first, [0xC2, 0xE1, 0xE2, 0xE3])
        rows = np.flatnonzero(maybe)
        return rows[np.array([not text for text in self.read(rows)], dtype=bool)]

    def batches(self, rows: int, size: int = 4 << 20) -> Iterator[range]:
        """Consecutive row ranges of at most `rows` lines and about `size` bytes."""
        by_size = np.searchsorted(self._starts[:-1], np.arange(0, len(self._data), size))
        cuts = np.unique(np.concatenate([np.arange(0, len(self), rows), by_size, [len(self)]]))
        yield from (range(a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))

    def _line(self, begin: int, end: int) -> str:
        return self._data[begin : end - 1].decode("utf-8").strip()

    def __reduce__(self) -> tuple[type[Lines], tuple[Path]]:
        return Lines, (self.path,)  # a worker process maps the file again instead of receiving its contents


def _map(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""  # an empty file cannot be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _line_starts(data: mmap.mmap | bytes) -> NDArray[np.int64]:
    """Start of every line and, last, where one more would start: line i is data[starts[i] : starts[i + 1] - 1]."""
    begin = len(codecs.BOM_UTF8) if data[:3] == codecs.BOM_UTF8 else 0
    bytes_ = np.frombuffer(data, np.uint8)
    found = [np.flatnonzero(bytes_[at : at + BLOCK] == 10) + (at + 1) for at in range(0, len(bytes_), BLOCK)]
    starts = np.concatenate([np.array([begin], np.int64), *found])
    unfinished = starts[-1] < len(data)  # the last line has no newline of its own
    return np.append(starts, len(data) + 1) if unfinished else starts


def _check_utf8(path: Path, data: mmap.mmap | bytes, starts: NDArray[np.int64]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(0, len(data), BLOCK):
        held = len(decoder.getstate()[0])  # bytes of a character that the last block cut in two
        try:
            decoder.decode(data[at : at + BLOCK], final=at + BLOCK >= len(data))
        except UnicodeDecodeError as error:
            position = at - held + error.start
            line = int(np.searchsorted(starts, position, side="right"))
            raise DataError(
                f"{path}:{line}: not valid UTF-8 (byte 0x{data[position]:02x}): convert the file, for instance with "
                f"`iconv -f latin1 -t utf-8`"
            ) from None
