"""Tokenizers of whole words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexml.data.files import DataError
from dexml.data.tokenizer import RowTokenizer, load_tokenizer
from dexml.data.words import vocabulary, words_of, write_tokenizer

SENTENCE = "Don't panic: R2-D2 costs 42 USD (v2.0)_x"
WORDS = ["don", "t", "panic", "r2", "d2", "costs", "usd", "v2", "_x"]


def test_words_are_lower_case_without_numbers() -> None:
    assert words_of(SENTENCE) == WORDS


def test_frequent_words_come_first_and_equals_by_the_alphabet() -> None:
    assert vocabulary(["b a a", "b c 7"]) == {"<pad>": 0, "<unk>": 1, "b": 2, "a": 3, "c": 4}


def test_the_tokenizer_gives_the_words_and_one_number_to_all_others(tmp_path: Path) -> None:
    assert write_tokenizer(tmp_path, [SENTENCE, "panic, Ünder 12"]) == 12
    tokenizer = load_tokenizer(str(tmp_path))
    known = tokenizer.get_vocab()
    ids, lengths = RowTokenizer(tokenizer, 20).encode([SENTENCE, "12 ünder", "never 3 panic", "42", ""])
    expected = [WORDS, ["ünder"], ["<unk>", "panic"], [], []]
    assert lengths.tolist() == [len(words) for words in expected]
    assert ids.tolist() == [known[word] for words in expected for word in words]


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(DataError, match="no words"):
        vocabulary(["12 7", ""])
