"""Gradient caching gives the gradient of plain backpropagation, whatever the chunks, with dropout on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dexml.data.batching import dropout_keys
from dexml.data.tokenize import open_tokens
from dexml.data.tokens import Tokens
from dexml.encoders.text import TextEncoder
from dexml.labels.gradcache import Chunking, TextSide
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model

ROWS = np.array([5, 17, 3, 80, 41, 9, 120, 66, 2, 77, 150])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextEncoder, Tokens]:
    from transformers import AutoModel

    root = tmp_path_factory.mktemp("cache")
    make_toy(root / "Toy")
    model = make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    tokens = open_tokens(root / "Toy" / "raw" / "trn_X.txt", str(model), 16)
    backbone = AutoModel.from_pretrained(model, add_pooling_layer=False)
    return TextEncoder(backbone, "mean", bottleneck=8, dropout=0.2).double().train(), tokens


def side(parts: tuple[TextEncoder, Tokens], rows: int, budget: int, keep: bool = False) -> TextSide:
    encoder, tokens = parts
    return TextSide(encoder, tokens, ROWS, dropout_keys(0, 1, 2, 0, ROWS), Chunking(rows, budget), keep)


def gradients(parts: tuple[TextEncoder, Tokens], texts: TextSide) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    encoder = parts[0]
    encoder.zero_grad()
    embedded = texts.embed()
    weight = torch.linspace(-1, 2, embedded.numel(), dtype=embedded.dtype).view_as(embedded)
    texts.backward(torch.cos(embedded) * weight)
    return embedded, {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows, budget", [(1, 16384), (3, 16384), (11, 40), (4, 1)])
def test_cached_equals_uncached(parts: tuple[TextEncoder, Tokens], rows: int, budget: int) -> None:
    embedded, expected = gradients(parts, side(parts, 99, 16384, keep=True))
    cached = side(parts, rows, budget)
    cached.keep_graph = False
    again, found = gradients(parts, cached)
    torch.testing.assert_close(again, embedded, rtol=0, atol=1e-12)
    assert expected.keys() == found.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-10, atol=1e-12, msg=name)


def test_the_second_encoding_is_the_first_bit_for_bit(parts: tuple[TextEncoder, Tokens]) -> None:
    texts = side(parts, 3, 16384)
    texts.keep_graph = False
    first = texts.embed()
    with torch.no_grad():
        second = torch.cat([texts._encode(chunk) for chunk in texts.chunks])
    assert torch.equal(first[np.concatenate(texts.chunks)], second)
    assert not torch.equal(first, gradients(parts, side_of_another_step(parts))[0])


def side_of_another_step(parts: tuple[TextEncoder, Tokens]) -> TextSide:
    encoder, tokens = parts
    return TextSide(encoder, tokens, ROWS, dropout_keys(0, 1, 3, 0, ROWS), Chunking(99, 16384))


def test_the_global_random_stream_is_left_alone(parts: tuple[TextEncoder, Tokens]) -> None:
    before = torch.get_rng_state()
    gradients(parts, side(parts, 3, 40))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_with_random_numbers_of_its_own_is_replayed(parts: tuple[TextEncoder, Tokens]) -> None:
    encoder = parts[0]
    noise = encoder.tf.embeddings.register_forward_hook(lambda *args: args[2] + torch.randn_like(args[2]))  # type: ignore[union-attr, operator]
    try:
        texts = side(parts, 3, 16384)
        texts.keep_graph = False
        first = texts.embed()
        with torch.no_grad():
            again = texts._encode_all()
    finally:
        noise.remove()
    assert torch.equal(first, again)


def test_no_texts_on_this_rank(parts: tuple[TextEncoder, Tokens]) -> None:
    encoder, tokens = parts
    none = np.array([], np.int64)
    texts = TextSide(encoder, tokens, none, none.astype(np.int32), Chunking(4, 64))
    embedded = texts.embed()
    assert embedded.shape == (0, 8)
    assert embedded.dtype == torch.float64
    texts.backward(embedded)
