"""Gradient caching gives the gradient of plain backpropagation, whatever the chunks, with dropout on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dexml.data.batching import dropout_keys
from dexml.data.tokenize import open_tokens
from dexml.data.tokens import Tokens
from dexml.encoders.text import Precision, TextEncoder
from dexml.labels.gradcache import Chunking, TextSide
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model

ROWS = np.array([5, 17, 3, 80, 41, 9, 120, 66, 2, 77, 150])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextEncoder, Tokens]:
    root = tmp_path_factory.mktemp("cache")
    make_toy(root / "Toy")
    return make_parts(root)


def make_parts(root: Path) -> tuple[TextEncoder, Tokens]:
    from transformers import AutoModel

    model = make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    tokens = open_tokens(root / "Toy" / "raw" / "trn_X.txt", str(model), 16)
    backbone = AutoModel.from_pretrained(model, add_pooling_layer=False)
    return TextEncoder(backbone, "mean", bottleneck=8, dropout=0.2).double().train(), tokens


def side(parts: tuple[TextEncoder, Tokens], rows: int, budget: int, keep: bool = False) -> TextSide:
    encoder, tokens = parts
    texts = TextSide(encoder, tokens, ROWS, dropout_keys(0, 1, 2, 0, ROWS), Chunking(rows, budget))
    texts.keep(texts.chunks.tokens * keep)
    return texts


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
    again, found = gradients(parts, cached)
    torch.testing.assert_close(again, embedded, rtol=0, atol=1e-12)
    assert expected.keys() == found.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-10, atol=1e-12, msg=name)


def test_the_second_encoding_is_the_first_bit_for_bit(parts: tuple[TextEncoder, Tokens]) -> None:
    texts = side(parts, 3, 16384)
    first = texts.embed()
    with torch.no_grad():
        second = texts.chunks.join(texts.chunks.map(texts._encode))
    assert torch.equal(first, second)
    assert not torch.equal(first, gradients(parts, side_of_another_step(parts))[0])


def side_of_another_step(parts: tuple[TextEncoder, Tokens]) -> TextSide:
    encoder, tokens = parts
    return TextSide(encoder, tokens, ROWS, dropout_keys(0, 1, 3, 0, ROWS), Chunking(99, 16384))


def test_the_global_random_stream_is_left_alone(parts: tuple[TextEncoder, Tokens]) -> None:
    before = torch.get_rng_state()
    gradients(parts, side(parts, 3, 40))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_with_random_numbers_of_its_own_is_replayed(tmp_path: Path) -> None:
    make_toy(tmp_path / "Toy")
    encoder, tokens = make_parts(tmp_path)
    encoder.tf.embeddings.register_forward_hook(lambda *args: args[2] + torch.randn_like(args[2]))  # type: ignore[union-attr, operator]
    assert encoder.draws
    assert not encoder.packs
    texts = side((encoder, tokens), 3, 16384)
    first = texts.embed()
    with torch.no_grad():
        again = texts.chunks.join(texts.chunks.map(texts._encode))
    assert torch.equal(first, again)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_the_number_of_threads_changes_nothing(parts: tuple[TextEncoder, Tokens], threads: int, packs: bool) -> None:
    before, own = torch.get_num_threads(), parts[0].packs
    embedded, expected = gradients(parts, side(parts, 99, 16384, keep=True))
    try:
        torch.set_num_threads(threads)
        parts[0].packs = packs
        for keep in (True, False):
            texts = side(parts, 4, 64, keep)
            assert len(texts.chunks.parts) > 2
            again, found = gradients(parts, texts)
            torch.testing.assert_close(again, embedded, rtol=0, atol=1e-12)
            for name, grad in expected.items():
                torch.testing.assert_close(found[name], grad, rtol=1e-10, atol=1e-12, msg=name)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
        parts[0].packs = own


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_and_repeated_encodings_give_the_same_bits(tmp_path: Path, precision: Precision, packs: bool) -> None:
    """So that a resumed run may have another memory budget."""
    make_toy(tmp_path / "Toy")
    encoder, tokens = make_parts(tmp_path)
    encoder.float().precision = precision
    encoder.packs = packs
    kept, expected = gradients((encoder, tokens), side((encoder, tokens), 4, 64, keep=True))
    for tokens_kept in (0, 20, 70):
        texts = side((encoder, tokens), 4, 64)
        some = texts.keep(tokens_kept)
        assert some <= tokens_kept
        repeated, found = gradients((encoder, tokens), texts)
        assert texts.encoded_tokens == 2 * texts.chunks.tokens - some
        assert torch.equal(kept, repeated)
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], grad) for name, grad in expected.items())


def test_as_many_chunks_are_kept_as_have_the_tokens(parts: tuple[TextEncoder, Tokens]) -> None:
    texts = side(parts, 2, 16384)
    sizes = texts.chunks.part_tokens
    assert len(sizes) > 3 and sum(sizes) == texts.chunks.tokens
    assert [texts.keep(tokens) for tokens in (-1.0, 0, sizes[0] - 1, sizes[0], sizes[0] + sizes[1] + 0.5, 1e9)] == [
        0, 0, 0, sizes[0], sizes[0] + sizes[1], sum(sizes),
    ]  # fmt: skip


def test_gradients_add_to_those_that_are_there(parts: tuple[TextEncoder, Tokens]) -> None:
    _, once = gradients(parts, side(parts, 3, 40))
    texts = side(parts, 3, 40)
    embedded = texts.embed()
    weight = torch.linspace(-1, 2, embedded.numel(), dtype=embedded.dtype).view_as(embedded)
    texts.backward(torch.cos(embedded) * weight)
    for name, p in parts[0].named_parameters():
        if name in once:
            assert not p.grad.is_sparse  # type: ignore[union-attr]
            torch.testing.assert_close(p.grad, 2 * once[name], rtol=1e-10, atol=1e-12, msg=name)


def test_an_error_in_one_thread_reaches_the_caller(parts: tuple[TextEncoder, Tokens]) -> None:
    texts = side(parts, 3, 40)
    texts.chunks.flat[:] = 64  # outside the vocabulary
    with pytest.raises(IndexError):
        texts.embed()


def test_no_texts_on_this_rank(parts: tuple[TextEncoder, Tokens]) -> None:
    encoder, tokens = parts
    none = np.array([], np.int64)
    texts = TextSide(encoder, tokens, none, none.astype(np.int32), Chunking(4, 64))
    embedded = texts.embed()
    assert embedded.shape == (0, 8)
    assert embedded.dtype == torch.float64
    texts.backward(embedded)
