"""The one interface to token ids, whether they are stored or made on the fly.

Shapes: N rows of the file, B rows asked for, T the longest of them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dexml.data.files import sha256
from dexml.data.textfile import Lines
from dexml.data.tokenizer import RowTokenizer, row_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class TokenInfo:
    """What decides the ids of a file: compared before a stored file is used."""

    text_sha256: str
    tokenizer_sha256: str
    max_len: int
    pad_id: int
    vocab_size: int

    @classmethod
    def of(cls, text_path: Path, tokenizer: RowTokenizer) -> TokenInfo:
        return cls(sha256(text_path), tokenizer.digest, tokenizer.max_len, tokenizer.pad_id, tokenizer.vocab_size)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over the text, the tokenizer and the maximal length."""
        key = f"{self.text_sha256}:{self.tokenizer_sha256}:{self.max_len}"
        return hashlib.sha256(key.encode()).hexdigest()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")


class Tokens(ABC):
    """Token ids of N texts, special tokens included."""

    pad_id: int

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the text, the tokenizer or the maximal length changes."""

    @property
    @abstractmethod
    def lengths(self) -> NDArray[np.int32] | None:
        """Tokens of every row [N]; None if only known after tokenising."""

    @abstractmethod
    def gather(self, rows: NDArray[np.integer]) -> tuple[Ids, Ids]:
        """Ids of these rows one after the other, and the number of ids of each row [B]; IndexError out of range."""

    def _checked(self, rows: NDArray[np.integer]) -> Ids:
        wanted: Ids = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows {wanted.min()}..{wanted.max()} of {len(self)}")
        return wanted


class TextTokens(Tokens):
    """Texts in memory, stripped and cut at `max_len` tokens."""

    def __init__(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_len: int) -> None:
        self._texts, self._tokenizer = texts, row_tokenizer(tokenizer, max_len)
        self.pad_id = self._tokenizer.pad_id

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self._texts).encode()).hexdigest()

    @property
    def lengths(self) -> None:
        return None

    def gather(self, rows: NDArray[np.integer]) -> tuple[Ids, Ids]:
        return self._tokenizer.encode([self._texts[i].strip() for i in self._checked(rows)])


class OnlineTokens(Tokens):
    """The same interface without a file: rows are tokenised whenever they are asked for."""

    def __init__(self, lines: Lines, tokenizer: PreTrainedTokenizerBase, max_len: int) -> None:
        self._lines, self._tokenizer = lines, RowTokenizer(tokenizer, max_len)
        self.pad_id = self._tokenizer.pad_id

    def __len__(self) -> int:
        return len(self._lines)

    @cached_property
    def fingerprint(self) -> str:
        return TokenInfo.of(self._lines.path, self._tokenizer).fingerprint

    @property
    def lengths(self) -> None:
        return None

    def gather(self, rows: NDArray[np.integer]) -> tuple[Ids, Ids]:
        return self._tokenizer.encode(self._lines.read(self._checked(rows)))
