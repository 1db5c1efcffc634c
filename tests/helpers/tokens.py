"""Texts that are given as token ids."""

from __future__ import annotations

import numpy as np

from dexml.data.tokens import Ids, Tokens


class ListTokens(Tokens):
    """Token ids of a few rows."""

    pad_id, fingerprint, lengths = 0, "", None

    def __init__(self, rows: list[list[int]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: np.ndarray) -> tuple[Ids, Ids]:
        own = [self._rows[i] for i in rows]
        return np.array([i for row in own for i in row], np.int64), np.array([len(row) for row in own], np.int64)
