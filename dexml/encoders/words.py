"""The BiLSTM of a config: its words are the tokens of a tokenizer, their vectors start as `word_vectors` says.

V words, E width of a word's vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.tokenizer import RowTokenizer, load_tokenizer
from dexml.distributed import RowTable
from dexml.encoders.bilstm import BiLSTM, BiLSTMConfig

SPREAD = 3**-0.5  # of a number uniform in (-1, 1)


def make_bilstm(cfg: Config, transformer_words: Tensor | None) -> BiLSTM:
    """A new BiLSTM with weights drawn from `seed`.

    Args:
        transformer_words: [V, E] of the transformer, for `word_vectors: tf`.
    Raises:
        ConfigError: the file of word vectors cannot be read.
    """
    tokenizer = RowTokenizer(load_tokenizer(cfg.tokenizer_name), cfg.tf_max_len)
    torch.manual_seed(cfg.seed)
    table_VE = _table(cfg, tokenizer.vocab_size) if transformer_words is None else _widened(transformer_words)
    n_words, width = table_VE.shape
    shape = BiLSTMConfig(
        n_words, width, cfg.lstm_width, tokenizer.pad_id, cfg.lstm_start, cfg.word_dropout, cfg.lstm_dropout
    )
    model = BiLSTM(shape)
    model.set_words(table_VE, cfg.train_words)
    return model


def sparse_words(model: BiLSTM) -> None:
    """The gradient of the word embeddings is to name the rows it touches."""
    model.words.weight, model.words.sparse = RowTable(model.words.weight.data), True


def _widened(table_VE: Tensor) -> Tensor:
    """A transformer's words spread as the others: it normalises them itself, an LSTM would see next to nothing."""
    return table_VE * (SPREAD / table_VE.std())


def _table(cfg: Config, n_words: int) -> Tensor:
    """Uniform in (-1, 1), as AttentionXML's words without a vector; those of the file are put over it."""
    if cfg.word_vectors == "random":
        return torch.empty(n_words, cfg.word_dim).uniform_(-1, 1)
    vocabulary = load_tokenizer(cfg.tokenizer_name).get_vocab()
    places, vectors = read_vectors(Path(cfg.word_vectors), vocabulary)
    table_VE = torch.empty(n_words, vectors.shape[1]).uniform_(-1, 1)
    table_VE[torch.from_numpy(places)] = torch.from_numpy(vectors)
    return table_VE


def read_vectors(path: Path, vocabulary: dict[str, int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids [n] and vectors [n, E] of the words of a file that are in the vocabulary; a line is a word and E numbers.

    Raises:
        ConfigError: no such file, lines of different widths or without numbers, or none of the words.
    """
    if not path.is_file():
        raise ConfigError(f"word_vectors: no such file {path}; tf and random need none")
    found: dict[int, NDArray[np.float32]] = {}
    width = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip().split(" ")
            if number == 1 and len(fields) == 2:  # word2vec's header: words and width
                continue
            width = width or len(fields) - 1
            word = " ".join(fields[:-width]) if width else ""
            if width < 1 or len(fields) <= width:
                raise ConfigError(f"{path}:{number}: expected a word and {width or 'some'} numbers")
            if word in vocabulary:
                found[vocabulary[word]] = _numbers(path, number, fields[-width:])
    if not found:
        raise ConfigError(f"word_vectors: {path} has none of the {len(vocabulary)} tokens of the tokenizer")
    return np.array(list(found)), np.stack(list(found.values()))


def _numbers(path: Path, line: int, fields: list[str]) -> NDArray[np.float32]:
    try:
        return np.array(fields, np.float32)
    except ValueError as error:
        raise ConfigError(f"{path}:{line}: {error}") from error
