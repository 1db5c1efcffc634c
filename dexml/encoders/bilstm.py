"""A BiLSTM over word embeddings, in the place of a transformer: `TextEncoder` pools its states, packs and drops alike.

B texts, T tokens (padded), N tokens laid end to end, E width of a word, h LSTM units a direction, D = 2h.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dexml.config import ConfigError

CONFIG = "bilstm.json"  # not config.json, which transformers would take for one of its own


@dataclass(frozen=True)
class BiLSTMConfig:
    """The shape of a BiLSTM."""

    vocab_size: int
    word_width: int
    hidden_size: int
    """D, both directions together"""
    pad_token_id: int = 0
    trainable_start: bool = False
    """The states before the first token are learnt, shared by all texts; zeros otherwise."""
    word_dropout: float = 0.2
    dropout: float = 0.5
    """on the output"""

    @property
    def num_hidden_layers(self) -> int:
        """States of one layer can be pooled."""
        return 1

    def __post_init__(self) -> None:
        if self.hidden_size % 2:
            raise ConfigError(f"lstm_width is {self.hidden_size}: two directions need an even number")


class BiLSTM(nn.Module):
    """Word embeddings with dropout, one bidirectional LSTM layer, dropout; zeros past the end of a text.

    Called as a transformer is: with `attention_mask` [B, T] for padded texts [B, T], or with `position_ids` [1, N] for
    texts laid end to end, whose places count from 0.
    """

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.word_width, config.pad_token_id)
        h = config.hidden_size // 2
        self.lstm = nn.LSTM(config.word_width, h, bidirectional=True)
        self.start = nn.Parameter(torch.zeros(2, 2, 1, h)) if config.trainable_start else None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> SimpleNamespace:
        p, q = self.config.word_dropout, self.config.dropout
        word_BTE = F.dropout(self.words(input_ids), p, self.training)
        if position_ids is not None:
            state_BTD = self._run(word_BTE[0], position_ids[0])[None]
        else:
            mask_BT = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
            state_ND = self._run(word_BTE[mask_BT], mask_BT.nonzero()[:, 1])
            state_BTD = state_ND.new_zeros(*mask_BT.shape, state_ND.shape[1])
            state_BTD[mask_BT] = state_ND
        return SimpleNamespace(last_hidden_state=F.dropout(state_BTD, q, self.training))

    def _run(self, word_NE: Tensor, position_N: Tensor) -> Tensor:
        """States [N, D] of texts laid end to end: all first tokens go through together, then all second ones."""
        text_N = (position_N == 0).long().cumsum(0) - 1
        longest_first = torch.bincount(text_N).argsort(descending=True, stable=True)
        rank_B = _inverse(longest_first)
        order_N = (position_N * len(rank_B) + rank_B[text_N]).argsort()
        batch_sizes = torch.bincount(position_N).cpu()
        out, _ = self.lstm(PackedSequence(word_NE[order_N], batch_sizes), self._start(len(rank_B)))
        return out.data[_inverse(order_N)]

    def _start(self, texts: int) -> tuple[Tensor, Tensor] | None:
        if self.start is None:
            return None
        h0, c0 = self.start.expand(-1, -1, texts, -1).contiguous()
        return h0, c0

    def set_words(self, table_VE: Tensor, trained: bool) -> None:
        """Starts the embeddings from a table; the padding row stays zeros."""
        with torch.no_grad():
            self.words.weight.copy_(table_VE)
            self.words.weight[self.config.pad_token_id] = 0
        self.words.weight.requires_grad_(trained)

    def save_pretrained(self, folder: str | Path) -> None:
        """bilstm.json and model.safetensors."""
        Path(folder, CONFIG).write_text(json.dumps(asdict(self.config), indent=1) + "\n", encoding="utf-8")
        save_model(self, str(Path(folder, "model.safetensors")))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> BiLSTM:
        """What `save_pretrained` wrote."""
        model = cls(BiLSTMConfig(**json.loads(Path(folder, CONFIG).read_text(encoding="utf-8"))))
        load_model(model, str(Path(folder, "model.safetensors")))
        return model


def _inverse(order: Tensor) -> Tensor:
    """Where each item went."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def is_bilstm(folder: str | Path) -> bool:
    """Whether a folder holds a saved BiLSTM."""
    return Path(folder, CONFIG).is_file()
