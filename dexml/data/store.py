"""Our token file: ragged ids in little more than a byte each, memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexml.data.arrays import Array, array_streams, map_arrays, smallest_type
from dexml.data.coding import IdCode
from dexml.data.dat import DatStore
from dexml.data.files import DataError, atomic_write
from dexml.data.partial import PartialTokens
from dexml.data.tokens import Ids, OnlineTokens, TokenInfo, Tokens

__all__ = ["DatStore", "Ids", "OnlineTokens", "PartialTokens", "TokenInfo", "TokenStore", "Tokens", "write_store"]

FORMAT = "dexml tokens 2"


class TokenStore(Tokens):
    """Ragged ids in a memory-mapped safetensors file: `leads`, `extras` and `table` of an `IdCode`, and where each of
    the N rows begins in the first two: `offsets` and `extra_offsets` [N + 1], 4 bytes a number where they suffice.
    """

    def __init__(self, path: Path, info: TokenInfo, arrays: Mapping[str, Array]) -> None:
        self.path, self.info, self.pad_id = path, info, info.pad_id
        self._leads, self._extras = arrays["leads"], arrays["extras"]
        self._offsets, self._extra_offsets = arrays["offsets"], arrays["extra_offsets"]
        self._code = IdCode(arrays["table"], self._extras.itemsize)

    @classmethod
    def open(cls, path: str | Path) -> TokenStore:
        """DataError if the file is missing, cut short or no token file of this version."""
        path = Path(path)
        try:
            metadata, arrays = map_arrays(path)
            if metadata["format"] != FORMAT:
                raise ValueError(f"{metadata['format']} instead of {FORMAT}")
            return cls(path, TokenInfo(**json.loads(metadata["info"])), arrays)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{path}: damaged or not of this version ({error}): delete it, it will be made again"
            ) from None

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
        places, lengths = _places(self._offsets, rows)
        extra_places, _ = _places(self._extra_offsets, rows)
        return self._code.decode(self._leads[places], self._extras[extra_places]), lengths

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return TokenStore.open, (self.path,)  # a worker process maps the file itself


def _places(offsets: Array, rows: Ids) -> tuple[Ids, Ids]:
    """Where the values of these rows stand, one row after the other, and how many each row has."""
    begins = offsets[rows].astype(np.int64)
    lengths = offsets[rows + 1].astype(np.int64) - begins
    before = np.cumsum(lengths) - lengths  # values of earlier rows of the answer
    return np.repeat(begins - before, lengths) + np.arange(int(lengths.sum())), lengths


def write_store(path: Path, partial: PartialTokens) -> None:
    """Makes the token file of all rows in `partial`, a batch at a time; it appears only when complete."""
    code = IdCode.fit(partial.counts)
    extras = code.extras(partial.counts)
    shapes = {
        "leads": (np.dtype("u1"), partial.tokens),
        "extras": (code.extra_type, extras),
        "table": (partial.info.dtype, len(code.table)),
        "offsets": (smallest_type(partial.tokens), partial.rows + 1),
        "extra_offsets": (smallest_type(extras), partial.rows + 1),
    }
    with atomic_write(path) as file:
        out = array_streams(file, {"format": FORMAT, "info": json.dumps(asdict(partial.info))}, shapes)
        out["table"].write(code.table)
        for name in ("offsets", "extra_offsets"):
            out[name].write(np.zeros(1, np.int64))
        for ids, lengths in partial.batches():
            leads, numbers = code.encode(ids)
            ends = np.cumsum(lengths, dtype=np.int64)
            extra_ends = np.append(0, np.cumsum(code.has_extra(leads)))[ends]
            out["offsets"].write(out["leads"].written + ends)
            out["extra_offsets"].write(out["extras"].written + extra_ends)
            out["leads"].write(leads)
            out["extras"].write(numbers)
        if out["leads"].written != partial.tokens:
            raise DataError(f"{path}: another process has written into its unfinished file: run this again")
