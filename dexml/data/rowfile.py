"""Files of rows that are written block by block, where all of them would not fit into memory."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Shape = tuple[int, ...]


def npy_header(shape: Shape, dtype: DTypeLike) -> bytes:
    """What stands before the rows in a `.npy` file."""
    out, kind = BytesIO(), np.dtype(dtype)
    np.lib.format.write_array_header_1_0(out, {"descr": kind.str, "fortran_order": False, "shape": shape})
    return out.getvalue()


def safetensors_header(name: str, shape: Shape) -> bytes:
    """What stands before the rows in a safetensors file of one float32 tensor, as its library writes it."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}
    text = json.dumps({name: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the rows are aligned
    return len(text).to_bytes(8, "little") + text


def append_rows(path: Path, rows: NDArray[Any]) -> None:
    """Adds rows at the end of a file."""
    with path.open("ab") as file:
        file.write(np.ascontiguousarray(rows).data)
