"""A tokenizer by name, and the exact, truncated token ids it gives to many texts at once."""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dexml.data.files import DataError
from dexml.data.package import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHARS_PER_TOKEN = 8  # first guess of the text that max_len tokens can use; a wrong guess costs time, never ids


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
    """Texts to ragged ids, the same as `tokenizer(text, truncation=True, max_length=max_len)` gives."""

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
        self._can_cut = tokenizer.truncation_side == "right" and _splits_at_spaces(self._json)

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
        heads = [self._head(text) for text in texts]
        rows: list[list[int]] = [e.ids for e in self._backend.encode_batch_fast(heads)]
        # A head that did not fill the row may lack words of the rest: those few texts are encoded whole.
        short = [i for i, row in enumerate(rows) if len(row) < self.max_len and len(heads[i]) < len(texts[i])]
        for i, encoding in zip(short, self._backend.encode_batch_fast([texts[i] for i in short]), strict=True):
            rows[i] = encoding.ids
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(lengths.sum())), lengths

    def _head(self, text: str) -> str:
        """The words that can matter: tokens of later words never change those of earlier ones."""
        limit = CHARS_PER_TOKEN * self.max_len
        if not self._can_cut or len(text) <= limit:
            return text
        cut = text.rfind(" ", 0, limit)
        return text[:cut] if cut > 0 else text


def _splits_at_spaces(config: dict[str, Any]) -> bool:
    """Whether a space always ends a token, whatever stands on its two sides: known for BERT's pipeline."""
    normalizer, splitter = config["normalizer"] or {}, config["pre_tokenizer"] or {}
    added = (token["content"] for token in config["added_tokens"])
    return (
        splitter.get("type") == "BertPreTokenizer"
        and normalizer.get("type", "BertNormalizer") == "BertNormalizer"
        and not any(" " in content for content in added)
    )
