"""Arrays in a safetensors file: memory-mapped to read, and written piece by piece where they do not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

TYPES: dict[str, np.dtype[Any]] = {f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)}
NAMES = {dtype: name for name, dtype in TYPES.items()}

Array = NDArray[np.unsignedinteger]


def smallest_type(largest: int) -> np.dtype:
    """The smallest of TYPES that holds the numbers 0 to `largest`."""
    return next(dtype for dtype in TYPES.values() if largest < 256**dtype.itemsize)


def map_arrays(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """The metadata and the arrays, each a view of the mapped file; ValueError or the like if it is not all there."""
    data = np.asarray(np.memmap(path, np.uint8, "r"))
    begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if begin > len(data):
        raise ValueError("its header is not complete")
    header = json.loads(data[8:begin].tobytes())
    metadata, arrays, end = header.pop("__metadata__"), {}, begin
    for name, entry in header.items():
        first, end = (begin + offset for offset in entry["data_offsets"])
        arrays[name] = data[first:end].view(TYPES[entry["dtype"]])
    if end != len(data):
        raise ValueError(f"{len(data)} bytes instead of {end}")
    return metadata, arrays


class ArrayStream:
    """One array of a file, written from its first value to its last, in turn with others."""

    def __init__(self, file: BinaryIO, begin: int, dtype: np.dtype) -> None:
        self._file, self._at, self._dtype = file, begin, dtype
        self.written = 0
        """values so far"""

    def write(self, values: NDArray[np.integer]) -> None:
        self._file.seek(self._at)
        self._at += self._file.write(values.astype(self._dtype).tobytes())
        self.written += len(values)


def array_streams(
    file: BinaryIO, metadata: Mapping[str, str], shapes: Mapping[str, tuple[np.dtype, int]]
) -> dict[str, ArrayStream]:
    """Writes the header of an empty file that will hold these arrays (type, number of values), wide types first."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, count) in sorted(shapes.items(), key=lambda item: -item[1][0].itemsize):
        begin, end = end, end + dtype.itemsize * count
        header[name] = {"dtype": NAMES[dtype], "shape": [count], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # every array is aligned
    file.write(len(text).to_bytes(8, "little") + text)
    return {
        name: ArrayStream(file, 8 + len(text) + header[name]["data_offsets"][0], dtype)
        for name, (dtype, _) in shapes.items()
    }
