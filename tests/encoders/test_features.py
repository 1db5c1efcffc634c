"""Vectors of several layers and of the parts of a text: packed, padded and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dexml.config import ConfigError
from dexml.encoders.features import segment_means
from dexml.encoders.packing import Packing
from dexml.encoders.pretrained import load_backbone
from dexml.encoders.text import TextEncoder
from tests.helpers.models import make_model

IDS = torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 4, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([7, 3, 2])
KEYS = torch.tensor([4, 5, 6], dtype=torch.int32)


def test_means_of_five_parts_of_seven_and_of_three_tokens() -> None:
    hidden = torch.cat([torch.arange(1.0, 8), torch.full((3,), 100.0), torch.arange(1.0, 4)])[:, None]
    text_of = torch.tensor([0] * 10 + [1] * 3)
    positions = torch.cat([torch.arange(10), torch.arange(3)])
    found = segment_means(hidden, text_of, positions, torch.tensor([7, 3]), 5)
    assert found.tolist() == [[1.5, 3, 4.5, 6, 7], [1, 2, 0, 3, 0]]


def test_a_text_without_tokens_has_parts_of_zeros() -> None:
    found = segment_means(torch.ones(1, 2), torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), 2)
    assert not found.any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("features") / "model", layers=3)


def encoder(folder: Path, pooler: str = "cls", **keys: int) -> TextEncoder:
    return TextEncoder(load_backbone(str(folder)), pooler, normalize=False, **keys).double().eval()  # type: ignore[arg-type]


def by_hand(model: TextEncoder, layers: int, segments: int) -> Tensor:
    rows = []
    for ids, n in zip(IDS, LENGTHS.tolist(), strict=True):
        states = model.tf(input_ids=ids[None, :n], output_hidden_states=True).hidden_states
        vectors = [states[-1 - i][0] for i in range(layers)]
        row = [v[0] if model.pooler == "cls" else v.mean(0) if model.pooler == "mean" else v[-1] for v in vectors]
        inner, last = n - 2, states[-1][0]
        for s in range(segments):
            part = [1 + t for t in range(inner) if segments * t // inner == s]
            row.append(last[part].mean(0) if part else torch.zeros_like(row[0]))
        rows.append(torch.cat(row))
    return torch.stack(rows)


@pytest.mark.parametrize("pooler", ["cls", "mean", "last"])
def test_layers_come_last_first_and_then_the_parts_packed_or_padded(folder: Path, pooler: str) -> None:
    model = encoder(folder, pooler, layers=3, segments=2)
    assert model.width == 5 * 32
    expected = by_hand(model, 3, 2)
    torch.testing.assert_close(model(IDS, LENGTHS, KEYS), expected)
    torch.testing.assert_close(model.packed(IDS[IDS > 0], Packing(LENGTHS.numpy()), KEYS), expected)
    wider = torch.cat([IDS, torch.zeros_like(IDS)], 1)
    torch.testing.assert_close(model(wider, LENGTHS, KEYS), expected)


def test_gradients_of_packed_and_padded_texts_are_equal_with_dropout(folder: Path) -> None:
    model = encoder(folder, layers=2, segments=3).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    weight = torch.randn(3, model.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.autograd.grad((model(IDS, LENGTHS, KEYS) * weight).sum(), parameters)
    packed = torch.autograd.grad(
        (model.packed(IDS[IDS > 0], Packing(LENGTHS.numpy()), KEYS) * weight).sum(), parameters
    )
    for a, b in zip(padded, packed, strict=True):
        torch.testing.assert_close(a, b)


def test_more_layers_than_there_are_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="doc_layers is 4, the transformer has 3"):
        encoder(folder, layers=4)
    with pytest.raises(ConfigError, match="gives one vector of the last layer"):
        TextEncoder(load_backbone(str(folder), pooling_layer=True), "pooler", layers=2)


def test_the_plain_encoder_gives_the_vector_of_the_last_layer(folder: Path) -> None:
    model = encoder(folder, layers=2)
    last = model(IDS, LENGTHS)[:, :32]
    torch.testing.assert_close(model.plain()(IDS, LENGTHS), torch.nn.functional.normalize(last))
    assert encoder(folder).plain().layers == 0
