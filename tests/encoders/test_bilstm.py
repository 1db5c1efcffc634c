"""The BiLSTM in a transformer's place, and encoders that give the state of every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.batching import dropout_keys
from dexml.encoders.bilstm import BiLSTM, BiLSTMConfig
from dexml.encoders.chunks import Chunks
from dexml.encoders.packing import Packing
from dexml.encoders.pretrained import build_encoder, load_backbone
from dexml.encoders.states import StateEncoder
from dexml.encoders.text import TextEncoder
from dexml.encoders.words import read_vectors
from dexml.labels.gradcache import Chunking, TextSide
from tests.helpers.models import make_model, toy_config

LENGTHS = np.array([3, 5, 1, 5, 2])


def bilstm(**keys: object) -> BiLSTM:
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "word_width": 6, "hidden_size": 8, "word_dropout": 0.0, "dropout": 0.0, **keys}
    return BiLSTM(BiLSTMConfig(**shape)).double()  # type: ignore[arg-type]


def texts() -> tuple[Tensor, Tensor]:
    """Ids [B, T] padded with 0, and lengths."""
    lengths = torch.from_numpy(LENGTHS)
    ids = torch.randint(1, 20, (5, 5), generator=torch.Generator().manual_seed(1))
    return ids * (torch.arange(5) < lengths[:, None]), lengths


class Store:
    pad_id = 0

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, lengths = texts()
        return np.concatenate([ids[i, : lengths[i]].numpy() for i in rows]), LENGTHS[rows]


def test_parameters_are_those_of_the_paper() -> None:
    for width, expected in ((512, 1_142_784), (1024, 3_334_144)):
        lstm = BiLSTM(BiLSTMConfig(10, 300, width)).lstm
        biases = sum(p.numel() for p in lstm.parameters() if p.dim() == 1)
        assert biases == 2 * 4 * width
        assert sum(p.numel() for p in lstm.parameters()) == expected


@pytest.mark.parametrize("start", [False, True])
def test_a_text_alone_equals_the_text_among_longer_ones_padded_or_packed(start: bool) -> None:
    model = bilstm(trainable_start=start)
    if model.start is not None:
        torch.nn.init.normal_(model.start)
    encoder = StateEncoder(model).eval()
    ids, lengths = texts()
    alone = torch.cat([encoder(ids[i : i + 1, : lengths[i]], lengths[i : i + 1]) for i in range(5)])
    assert alone.shape == (16, 8)
    padded = torch.nn.functional.pad(ids, (0, 3))
    torch.testing.assert_close(encoder(padded, lengths), alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder.packed(ids[ids > 0], Packing(LENGTHS)), alone, rtol=0, atol=1e-12)


def test_states_are_those_of_the_plain_lstm_and_zero_past_the_end() -> None:
    model = bilstm().eval()
    ids, lengths = texts()
    mask = torch.arange(5) < lengths[:, None]
    found = model(ids, mask).last_hidden_state
    assert found[~mask].abs().max() == 0
    for i in range(5):
        plain, _ = model.lstm(model.words(ids[i, : lengths[i]]))
        torch.testing.assert_close(found[i, : lengths[i]], plain, rtol=0, atol=1e-12)


def test_dropout_is_a_function_of_the_text_padded_or_packed_and_it_packs() -> None:
    encoder = StateEncoder(bilstm(word_dropout=0.3, dropout=0.5)).train()
    ids, lengths = texts()
    keys = torch.arange(5, dtype=torch.int32)
    whole = encoder(ids, lengths, keys)
    assert (whole == 0).double().mean() > 0.3
    torch.testing.assert_close(encoder.packed(ids[ids > 0], Packing(LENGTHS), keys), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(ids[:1, :3], lengths[:1], keys[:1]), whole[:3], rtol=0, atol=1e-12)
    assert encoder.packs
    assert not encoder.draws


def test_a_transformer_gives_states_as_well(tmp_path: Path) -> None:
    encoder = StateEncoder(load_backbone(str(make_model(tmp_path / "model")))).eval()
    assert encoder.packs
    ids, lengths = texts()
    states = encoder(ids, lengths)
    assert states.shape == (16, 32)
    pooled = encoder.plain()
    assert isinstance(pooled, TextEncoder)
    assert not pooled.states
    mean = torch.nn.functional.normalize(states[3:8].mean(0), dim=0)
    torch.testing.assert_close(pooled.eval()(ids, lengths)[1], mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 4, 99])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_gradient_caching_of_states_equals_the_plain_gradient(kept: int, rows: int) -> None:
    encoder = StateEncoder(bilstm(word_dropout=0.3, dropout=0.5)).train()
    order = np.array([4, 1, 0, 3, 2])
    ids, lengths = texts()
    keys = dropout_keys(0, 0, 0, 0, order)
    whole = encoder(ids[order], lengths[order], torch.from_numpy(keys))
    weight = torch.randn(whole.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (whole * weight).sum().backward()
    expected = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    side = TextSide(encoder, Store(), order, keys, Chunking(rows, 6))  # type: ignore[arg-type]
    side.keep(kept)
    torch.testing.assert_close(side.embed(), whole.detach(), rtol=0, atol=1e-12)
    side.backward(weight)
    for name, grad in expected.items():
        torch.testing.assert_close(dict(encoder.named_parameters())[name].grad, grad, rtol=0, atol=1e-12)
    assert not expected["tf.words.weight"][0].any()


def test_rows_of_states_follow_the_texts() -> None:
    chunks = Chunks(StateEncoder(bilstm()), np.arange(16), LENGTHS, 0, 99, 99)
    assert chunks.rows(np.array([3, 0])).tolist() == [9, 10, 11, 12, 13, 0, 1, 2]


def test_a_saved_bilstm_loads_where_a_transformer_would(tmp_path: Path) -> None:
    model = bilstm(trainable_start=True).float()
    model.save_pretrained(tmp_path)
    again = load_backbone(str(tmp_path))
    assert isinstance(again, BiLSTM)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_words_start_from_the_transformer_at_random_or_from_a_file(tmp_path: Path) -> None:
    settings = toy_config(tmp_path, net="bilstm", lstm_width=8, word_dim=5)
    device = torch.device("cpu")
    words: Any = load_backbone(settings["tf"]).get_input_embeddings().weight  # type: ignore[operator]
    encoder = build_encoder(Config(**settings), device)
    assert encoder.states
    assert encoder.width == 8
    weight: Any = encoder.tf.words.weight  # type: ignore[union-attr]
    torch.testing.assert_close(weight[1:], words[1:] * (weight[1] / words[1]).mean())
    assert float(weight.detach().std()) == pytest.approx(1 / 3**0.5, rel=0.01)  # as far apart as uniform ones
    encoder = build_encoder(Config(**settings | {"word_vectors": "random", "train_words": False}), device)
    weight = encoder.tf.words.weight  # type: ignore[union-attr]
    assert weight.shape[1] == 5
    assert not weight.requires_grad
    (tmp_path / "vectors.txt").write_text("2 3\nred 1 2 3\nnever-seen 7 8 9\nfox 4 5 6\n")
    encoder = build_encoder(Config(**settings | {"word_vectors": str(tmp_path / "vectors.txt")}), device)
    weight = encoder.tf.words.weight  # type: ignore[union-attr]
    assert weight.tolist()[5] == [1, 2, 3]
    assert weight.tolist()[0] == [0, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("red 1 2\nfox 1\n", r":2: expected a word and 2 numbers"),
        ("red 1 x\n", r":1: could not convert"),
        ("blue 1 2\n", r"has none of the 2 tokens"),
        ("red\n", r":1: expected a word and some numbers"),
    ],
)
def test_a_broken_file_of_vectors_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_vectors(file, {"red": 1, "fox": 2})


def test_an_odd_width_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lstm_width is 7"):
        BiLSTMConfig(10, 4, 7)
    with pytest.raises(ConfigError, match="no such file"):
        read_vectors(tmp_path / "none.txt", {})
