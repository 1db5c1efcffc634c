from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from dexml.config import ConfigError
from dexml.encoders.pretrained import load_backbone
from dexml.encoders.text import Pooler, TextEncoder
from tests.helpers.models import make_model

KINDS = ["bert", "distilbert", "roberta", "mpnet", "qwen2", "t5"]
LENGTHS = torch.tensor([9, 3, 4, 9, 1, 6])
KEYS = torch.tensor([11, -5, 3, 2**31 - 1, 0, 77], dtype=torch.int32)


def token_ids(lengths: Tensor, width: int = 9) -> Tensor:
    ids = torch.randint(5, 39, (len(lengths), width), generator=torch.Generator().manual_seed(0))
    return ids.masked_fill(torch.arange(width) >= lengths[:, None], 0)


IDS = token_ids(LENGTHS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(root / kind, kind) for kind in KINDS}


def encoder(folder: Path, dropout: float | None = None, pooler: Pooler = "mean", **settings: Any) -> TextEncoder:
    return TextEncoder(
        load_backbone(str(folder), pooling_layer=pooler == "pooler", dropout=dropout), pooler, **settings
    )


class Given(nn.Module):
    """A transformer that gives the token vectors it was made with."""

    def __init__(self, hidden_BTH: Tensor) -> None:
        super().__init__()
        self.hidden = nn.Parameter(hidden_BTH)
        self.config = type("Config", (), {"hidden_size": hidden_BTH.shape[-1]})()

    def forward(self, **_: Tensor) -> Any:
        return type("Output", (), {"last_hidden_state": self.hidden})()


# ---- pooling, projection, normalisation


def pooled_by_hand(model: PreTrainedModel, pooler: Pooler, ids: Tensor, length: int) -> Tensor:
    """One text without padding, in the words of each pooler."""
    out = model(input_ids=ids[None, :length])
    token = out.last_hidden_state[0]
    return {"cls": token[0], "mean": token.mean(0), "last": token[-1], "pooler": out.get("pooler_output", [None])[0]}[
        pooler
    ]


@pytest.mark.parametrize("pooler", ["cls", "mean", "last", "pooler"])
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_poolers_equal_plain_transformers_code(folders: dict[str, Path], kind: str, pooler: Pooler) -> None:
    plain = AutoModel.from_pretrained(folders[kind]).eval()
    with torch.no_grad():
        found = encoder(folders[kind], pooler=pooler, normalize=False).eval()(IDS, LENGTHS)
        expected = [pooled_by_hand(plain, pooler, ids, int(n)) for ids, n in zip(IDS, LENGTHS, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=2e-6)


def test_the_projection_follows_pooling_and_normalisation_comes_last(folders: dict[str, Path]) -> None:
    plain = encoder(folders["bert"], normalize=False).eval()
    model = encoder(folders["bert"], bottleneck=5).eval()
    assert model.bottleneck is not None and model.width == 5
    with torch.no_grad():
        projected = plain(IDS, LENGTHS) @ model.bottleneck.weight.T + model.bottleneck.bias
        found = model(IDS, LENGTHS)
    torch.testing.assert_close(found, projected / projected.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)


def test_the_gradient_of_normalisation_is_that_of_example_e10() -> None:
    model = TextEncoder(Given(torch.tensor([[[3.0, 4.0]]], dtype=torch.float64)), "cls").eval()
    out = model(torch.tensor([[7]]), torch.tensor([1]))
    torch.testing.assert_close(out, torch.tensor([[0.6, 0.8]], dtype=torch.float64))
    out.backward(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    grad = model.tf.get_parameter("hidden").grad
    assert grad is not None and grad.flatten().tolist() == pytest.approx([0.128, -0.096], abs=1e-12)


def test_dropout_on_the_embedding_comes_before_normalisation() -> None:
    model = TextEncoder(Given(torch.ones(2, 1, 400)), "cls", dropout=0.5).train()
    out = model(torch.tensor([[7], [7]]), torch.tensor([1, 1]), KEYS[:2])
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    assert 140 < (out[0] == 0).sum() < 260
    assert not torch.equal(out[0], out[1])


def test_a_hidden_width_other_than_768_is_read_from_the_model(tmp_path: Path) -> None:
    model = encoder(make_model(tmp_path, width=20, layers=1)).eval()
    assert model.width == 20
    assert model(IDS, LENGTHS).shape == (6, 20)


def test_a_pooling_layer_that_is_asked_for_must_exist(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="tf_pooler: pooler needs a transformer with a pooling layer"):
        TextEncoder(load_backbone(str(folders["distilbert"])), "pooler")


def test_an_unused_pooling_layer_is_frozen(folders: dict[str, Path]) -> None:
    backbone = load_backbone(str(folders["bert"]), pooling_layer=True)
    model = TextEncoder(backbone, "cls").eval()
    model(IDS, LENGTHS).sum().backward()
    idle = {name for name, value in model.named_parameters() if value.requires_grad and value.grad is None}
    assert idle == set()
    assert not any(value.requires_grad for name, value in model.named_parameters() if "pooler" in name)


def test_a_model_without_a_text_width_is_refused() -> None:
    backbone = Given(torch.zeros(1, 1, 2))
    del type(backbone.config).hidden_size
    with pytest.raises(ConfigError, match="tells no hidden_size"):
        TextEncoder(backbone)


# ---- padding and batches


@pytest.mark.parametrize("pooler", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_do_not_depend_on_batch_and_padding(folders: dict[str, Path], kind: str, pooler: Pooler) -> None:
    model = encoder(folders[kind], pooler=pooler).double().eval()
    with torch.no_grad():
        together = model(torch.cat([IDS, torch.zeros(6, 4, dtype=torch.long)], 1), LENGTHS)
        alone = [model(ids[None, :n], n[None]) for ids, n in zip(IDS, LENGTHS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooler", ["cls", "mean", "last"])
def test_a_text_of_no_tokens_has_a_finite_embedding(folders: dict[str, Path], pooler: Pooler) -> None:
    model = encoder(folders["bert"], pooler=pooler).eval()
    ids, lengths = torch.cat([IDS, torch.zeros(1, 9, dtype=torch.long)]), torch.cat([LENGTHS, torch.tensor([0])])
    alone = model(torch.zeros(1, 1, dtype=torch.long), torch.tensor([0]))
    assert alone.isfinite().all()
    torch.testing.assert_close(model(ids, lengths)[6:], alone)


@pytest.mark.parametrize("pooler", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_dropout_on_a_text_with_its_key_has_one_embedding(
    folders: dict[str, Path], kind: str, pooler: Pooler
) -> None:
    model = encoder(folders[kind], 0.3, pooler).double().train()
    with torch.no_grad():
        together = model(IDS, LENGTHS, KEYS)
        order = torch.tensor([4, 1, 2])
        part = model(IDS[order, :4], LENGTHS[order], KEYS[order])
        other_keys = model(IDS, LENGTHS, KEYS + 1)
        plain = model.eval()(IDS, LENGTHS)
    torch.testing.assert_close(part, together[order], rtol=0, atol=1e-12)
    several = LENGTHS > 1  # the one token of a text attends to itself: two masks may agree
    assert ((together - other_keys).norm(dim=1) > 1e-3)[several].all()
    assert ((together - plain).norm(dim=1) > 1e-3)[several].all()


@pytest.mark.parametrize("kind", KINDS)
def test_training_mode_without_dropout_equals_evaluation_mode(folders: dict[str, Path], kind: str) -> None:
    model = encoder(folders[kind], dropout=0.0).double()
    with torch.no_grad():
        torch.testing.assert_close(model.train()(IDS, LENGTHS, KEYS), model.eval()(IDS, LENGTHS), rtol=0, atol=1e-12)


def test_sdpa_and_eager_attention_drop_the_same(folders: dict[str, Path]) -> None:
    model = encoder(folders["bert"], dropout=0.3).double().train()
    sdpa = model(IDS, LENGTHS, KEYS)
    model.tf.set_attn_implementation("eager")  # type: ignore[operator]
    torch.testing.assert_close(model(IDS, LENGTHS, KEYS), sdpa, rtol=0, atol=1e-12)


def test_training_mode_needs_keys_and_leaves_the_global_random_state_alone(folders: dict[str, Path]) -> None:
    model = encoder(folders["bert"], dropout=0.3).train()
    before = torch.get_rng_state()
    model(IDS, LENGTHS, KEYS).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="a dropout key for each text"):
        model(IDS, LENGTHS)


# ---- gradient checkpointing and precision


@pytest.mark.parametrize("kind", ["bert", "distilbert", "qwen2"])
def test_gradient_checkpointing_gives_the_same_gradients_with_dropout_on(folders: dict[str, Path], kind: str) -> None:
    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        model = encoder(folders[kind], dropout=0.3).double().train()
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        next(module for module in model.modules() if isinstance(module, nn.Linear)).register_forward_hook(count)
        if checkpointing:
            model.checkpoint_gradients()
        weights = torch.randn(6, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        (model(IDS, LENGTHS, KEYS) * weights).sum().backward()
        assert calls == (2 if checkpointing else 1)
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and plain
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=1e-12, msg=name)


def test_a_model_that_cannot_checkpoint_gradients_is_named(folders: dict[str, Path]) -> None:
    model = encoder(folders["bert"])
    setattr(model.tf, "supports_gradient_checkpointing", False)  # noqa: B010
    with pytest.raises(ConfigError, match=r"grad_checkpointing: .*set it to false"):
        model.checkpoint_gradients()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pooler", ["cls", "mean", "last", "pooler"])
def test_bf16_autocast_is_close_to_fp32_and_gives_float32(
    folders: dict[str, Path], pooler: Pooler, training: bool
) -> None:
    whole = encoder(folders["bert"], 0.1, pooler).train(training)
    half = encoder(folders["bert"], 0.1, pooler, precision="bf16").train(training)
    exact, found = whole(IDS, LENGTHS, KEYS), half(IDS, LENGTHS, KEYS)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.02
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))  # normalised in float32
    found.sum().backward()
    assert {value.grad.dtype for value in half.parameters() if value.grad is not None} == {torch.float32}
