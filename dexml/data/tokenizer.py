"""A tokenizer by name, and the exact, truncated token ids it gives to many texts at once."""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dexml.data.files import DataError
from dexml.data.package import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHE = 1 << 20  # characters of words whose ids are remembered: some 130,000 words, 30 MB


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The Hugging Face tokenizer of a Hub id, a local folder or `package:<python package>/<folder>`."""
    place = resolve_model(name)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"no tokenizer could be loaded from {name!r} (local folder, package: or Hub id): {reason}"
        ) from error


class RowTokenizer:
    """Texts to ragged ids, the same as `tokenizer(text, truncation=True, max_length=max_len)` gives.

    Where a space always ends a token (BERT's kind), a text's ids are those of its words: each is tokenised once and
    remembered, and words behind the last token of a row are not looked at.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_len: int) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise DataError(f"tokenizer {tokenizer.name_or_path!r} has no fast version (tokenizer.json)")
        if tokenizer.pad_token_id is None:
            raise DataError(f"tokenizer {tokenizer.name_or_path!r} has no padding token: set one in its folder")
        special = tokenizer.num_special_tokens_to_add()
        if max_len <= special:  # the library would then return the whole text
            raise DataError(f"max length {max_len} leaves no room beside {special} special tokens")
        self.max_len = max_len
        self.pad_id = int(tokenizer.pad_token_id)
        # A copy: the caller's tokenizer keeps its own truncation and padding.
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        self._backend.encode_special_tokens = tokenizer.split_special_tokens
        self._json: dict[str, Any] = json.loads(self._backend.to_str())
        self._backend.enable_truncation(max_len, direction=tokenizer.truncation_side)
        mask = self._backend.encode("a").special_tokens_mask
        self._by_words = tokenizer.truncation_side == "right" and _splits_at_spaces(self._json) and 0 in mask
        self._cache: dict[str, list[int]] = {}
        self._cached = 0

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides the ids except max_len, independent of library versions and key order."""
        config = self._json | {"split_special_tokens": self._backend.encode_special_tokens}
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Flat ids of all texts, special tokens included, and the number of ids of each text (each <= max_len)."""
        rows = self._rows_of_words(texts) if self._by_words else [e.ids for e in self._backend.encode_batch_fast(texts)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(lengths.sum())), lengths

    def _rows_of_words(self, texts: list[str]) -> list[list[int]]:
        before, after = self._frame
        room = self.max_len - len(before) - len(after)
        # Most words give a token or more; a text of words that give none is read to its end.
        parts = [text.split(" ", room) for text in texts]
        rows = self._joined([words[:room] for words in parts])
        short = [i for i, row in enumerate(rows) if len(row) < room < len(parts[i])]
        for i, row in zip(short, self._joined([texts[i].split(" ") for i in short]), strict=True):
            rows[i] = row
        return [before + row[:room] + after for row in rows]

    def _joined(self, texts: list[list[str]]) -> list[list[int]]:
        """The ids of texts that are given as words, without special tokens."""
        cache = self._cache  # another thread may begin a new one
        missing = list(set().union(*texts).difference(cache))
        encoded = self._backend.encode_batch_fast(missing, add_special_tokens=False)
        cache.update(zip(missing, (encoding.ids for encoding in encoded), strict=True))
        rows = [list(itertools.chain.from_iterable(map(cache.__getitem__, words))) for words in texts]
        self._cached += sum(map(len, missing))
        if self._cached > CACHE:
            self._cache, self._cached = {}, 0
        return rows

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        encoding = self._backend.encode("a")
        mask = encoding.special_tokens_mask
        begin, end = mask.index(0), len(mask) - mask[::-1].index(0)
        return encoding.ids[:begin], encoding.ids[end:]


_MADE: WeakKeyDictionary[PreTrainedTokenizerBase, dict[int, RowTokenizer]] = WeakKeyDictionary()


def row_tokenizer(tokenizer: PreTrainedTokenizerBase, max_len: int) -> RowTokenizer:
    """The `RowTokenizer` of a tokenizer that changes no more, made once: that takes longer than encoding a text."""
    made = _MADE.setdefault(tokenizer, {})
    if max_len not in made:
        made[max_len] = RowTokenizer(tokenizer, max_len)
    return made[max_len]


def _splits_at_spaces(config: dict[str, Any]) -> bool:
    """Whether a space always ends a token, whatever stands on its two sides: known for BERT's pipeline."""
    normalizer, splitter = config["normalizer"] or {}, config["pre_tokenizer"] or {}
    added = "".join(token["content"] for token in config["added_tokens"])
    return (
        splitter.get("type") == "BertPreTokenizer"
        and normalizer.get("type", "BertNormalizer") == "BertNormalizer"
        and not any(map(str.isspace, added))
    )
