"""Keys of the network that reads the words, where it need not be a transformer."""

from typing import Annotated, Literal

from pydantic import Field

from dexml.configkeys.kinds import Count, KeyGroup, Share


class WordKeys(KeyGroup):
    # Reading words
    text_encoder: Literal["auto", "transformer", "bilstm"] = "auto"
    """Network that reads the words: the transformer tf, or one BiLSTM layer over word embeddings. auto: bilstm for net
    bilstm and attentionxml."""
    word_vectors: Annotated[str, Field(min_length=1)] = "tf"
    """Where the word embeddings of a bilstm start: those of tf, random, or a text file of a word and its numbers a
    line (GloVe). Words are the tokens of tf_token_type."""
    word_dim: Count = 300
    """Width of random word embeddings."""
    train_words: bool = True
    """Train the word embeddings. False keeps pretrained ones as they are, for small data sets."""
    word_dropout: Share = 0.2
    """Dropout on the word embeddings."""
    lstm_width: Count = 512
    """Width of a token's state, half of it from each direction."""
    lstm_start: bool = False
    """Learn the states before the first word. False starts from zeros."""
    lstm_dropout: Share = 0.5
    """Dropout on the states."""
