import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dexml.config import ConfigError
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.encoder import Encoder
from dexml.encoders.pretrained import load_backbone
from dexml.encoders.text import TextEncoder
from dexml.encoders.weights import load_weights
from tests.encoders.test_pretrained import Trap
from tests.encoders.test_text import IDS, LENGTHS
from tests.helpers.models import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), layers=1)


def encoder(folder: Path, bottleneck: int = 0, pooling_layer: bool = False) -> TextEncoder:
    return TextEncoder(load_backbone(str(folder), pooling_layer=pooling_layer), "cls", bottleneck).eval()


def other(model: TextEncoder) -> dict[str, Tensor]:
    """Weights for `model` that it does not have."""
    return {name: value + 0.01 for name, value in model.state_dict().items()}


def assert_loaded(model: TextEncoder, path: Path, expected: dict[str, Tensor]) -> None:
    assert not any(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    load_weights(model, path)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bottleneck", [0, 5])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_model_of_dexml_loads_with_and_without_module(
    folder: Path, tmp_path: Path, prefix: str, bottleneck: int
) -> None:
    model = encoder(folder, bottleneck)
    expected = other(model)
    old = {"tf.embeddings.position_ids": torch.arange(64)[None]}  # a buffer that old versions of transformers saved
    torch.save({prefix + name: value for name, value in (expected | old).items()}, tmp_path / "model.pt")
    assert_loaded(model, tmp_path / "model.pt", expected)


def test_it_gives_the_embeddings_of_the_bare_encoder(folder: Path, tmp_path: Path) -> None:
    source = encoder(folder)
    source.load_state_dict(other(source))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    source.tf.save_pretrained(tmp_path / "bare")  # type: ignore[operator]
    imported = encoder(folder)
    load_weights(imported, tmp_path / "model.pt")
    assert torch.equal(imported(IDS, LENGTHS), encoder(tmp_path / "bare")(IDS, LENGTHS))


def test_plain_names_of_the_transformer_load_from_file_and_folder(folder: Path, tmp_path: Path) -> None:
    model = encoder(folder)
    expected = other(model)
    plain = {name.removeprefix("tf."): value for name, value in expected.items()}
    save_file(plain, tmp_path / "model.safetensors")
    assert_loaded(encoder(folder), tmp_path, expected)
    assert_loaded(encoder(folder), tmp_path / "model.safetensors", expected)
    torch.save(plain, tmp_path / "model.pt")
    assert_loaded(encoder(folder), tmp_path / "model.pt", expected)


@pytest.mark.parametrize("bottleneck", [0, 5])
def test_a_saved_encoder_loads_with_its_projection(folder: Path, tmp_path: Path, bottleneck: int) -> None:
    source = encoder(folder, bottleneck)
    source.load_state_dict(other(source))
    Encoder(source, load_tokenizer(str(folder)), 16).save(tmp_path / "best")
    assert_loaded(encoder(folder, bottleneck), tmp_path / "best", source.state_dict())


def test_a_pooling_layer_that_nothing_uses_may_be_on_either_side(folder: Path, tmp_path: Path) -> None:
    with_layer, without = encoder(folder, pooling_layer=True), encoder(folder)
    assert "tf.pooler.dense.weight" in with_layer.state_dict()
    torch.save(other(with_layer), tmp_path / "with.pt")
    torch.save(other(without), tmp_path / "without.pt")
    assert_loaded(without, tmp_path / "with.pt", other(without))
    load_weights(with_layer, tmp_path / "without.pt")
    assert all(torch.equal(with_layer.state_dict()[name], value) for name, value in without.state_dict().items())


def test_a_pooling_layer_in_use_is_needed(folder: Path, tmp_path: Path) -> None:
    torch.save(encoder(folder).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"missing tf\.pooler\.dense\.weight"):
        load_weights(TextEncoder(load_backbone(str(folder), pooling_layer=True), "pooler"), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("tf.embeddings.LayerNorm.bias"), r"missing tf\.embeddings\.LayerNorm\.bias$"),
        (lambda w: w.update({"all_w.weight": torch.zeros(1)}), r"unexpected all_w\.weight$"),
        (lambda w: w.update({"tf.embeddings.LayerNorm.bias": torch.zeros(3)}), r"has shape \(3,\), not \(32,\)$"),
        (lambda w: [w.pop(name) for name in list(w)[1:]], r"missing .* and \d+ more$"),
    ],
)
def test_names_and_shapes_that_do_not_fit_are_listed(folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    model = encoder(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = other(model)
    change(weights)
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=message):
        load_weights(model, tmp_path / "model.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_malicious_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"tf.x": Trap(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"model\.pt holds no weights that can be read safely"):
        load_weights(encoder(folder), tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.pt does not exist"):
        load_weights(encoder(folder), tmp_path / "absent.pt")
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"0123")
    with pytest.raises(ConfigError, match="holds no weights that can be read safely"):
        load_weights(encoder(folder), tmp_path / "cut")
    for content in ([torch.zeros(1)], {"step": 3}):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(ConfigError, match=r"model\.pt is no state dict"):
            load_weights(encoder(folder), tmp_path / "model.pt")
