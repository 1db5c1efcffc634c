"""A tokenizer whose tokens are the words of some texts, for word vectors such as GloVe's.

Words are runs of letters, digits and underscores of the lower-cased text; those of digits alone are left out (as in
LibMultiLabel). `<pad>` is 0 and `<unk>` 1; the others follow by the number of texts that hold them, of equals
alphabetically.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dexml.data.files import DataError

PAD, UNKNOWN = "<pad>", "<unk>"
WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    return [word for word in WORD.findall(text.lower()) if not re.fullmatch(r"\d+", word)]


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """The number of every word.

    Raises:
        DataError: there are no words.
    """
    counts = Counter(word for text in texts for word in set(words_of(text)))
    if not counts:
        raise DataError("these texts hold no words: a tokenizer of words needs some")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: i for i, word in enumerate([PAD, UNKNOWN, *ordered])}


def write_tokenizer(folder: Path, texts: Iterable[str]) -> int:
    """Writes the tokenizer of these texts; `tf_token_type` names the folder. Returns the number of its words."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Sequence, Split
    from transformers import PreTrainedTokenizerFast

    known = vocabulary(texts)
    tokenizer = Tokenizer(WordLevel(known, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    between, numbers = Regex(r"[^\w]+"), Regex(r"^\d+$")
    tokenizer.pre_tokenizer = Sequence([Split(between, "removed"), Split(numbers, "removed")])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN).save_pretrained(folder)
    return len(known)
