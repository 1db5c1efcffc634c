import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from dexml import load_config
from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.encoders.pretrained import (
    build_encoder,
    load_backbone,
    model_folder,
    position_limit,
    quiet,
    resolve_precision,
)
from tests.helpers.datasets import PACKAGED
from tests.helpers.models import make_model, write_config

CPU = torch.device("cpu")


def edit_config(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", layers=1)


# ---- what is loaded


def test_the_pooling_layer_is_kept_only_if_asked_for(folder: Path) -> None:
    assert load_backbone(str(folder)).pooler is None
    assert isinstance(load_backbone(str(folder), pooling_layer=True).pooler, nn.Module)


def test_weights_are_float32_and_those_of_the_folder(folder: Path) -> None:
    AutoModel.from_pretrained(folder).bfloat16().save_pretrained(folder)
    model = load_backbone(str(folder))
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    expected = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, expected[name].float()) for name, value in model.state_dict().items())


def test_of_an_encoder_decoder_the_encoder_is_taken(tmp_path: Path) -> None:
    model = load_backbone(str(make_model(tmp_path, "t5")))
    assert type(model).__name__ == "T5EncoderModel"
    assert not any("decoder" in name for name in model.state_dict())


@pytest.mark.parametrize("kind", ["bert", "distilbert", "qwen2", "t5"])
def test_a_dropout_probability_replaces_all_of_a_model(tmp_path: Path, kind: str) -> None:
    model = load_backbone(str(make_model(tmp_path, kind)), dropout=0.37)
    config = model.config.to_dict()  # type: ignore[operator, union-attr]
    found = {config[key] for key in config if "drop" in key and config[key] is not None}
    assert found == {0.37}
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} <= {0.37}


def test_without_one_the_model_keeps_its_own_dropout(tmp_path: Path) -> None:
    folder = make_model(tmp_path, hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.05)
    ps = {module.p for module in load_backbone(str(folder)).modules() if isinstance(module, nn.Dropout)}
    assert ps == {0.25, 0.05}


def test_whole_layers_are_never_dropped_by_a_dropout_probability() -> None:
    from dexml.encoders.pretrained import _set_dropout

    config = SimpleNamespace(dropout=0.1, encoder_layerdrop=0.2, use_dropout=True)
    config.to_dict = lambda: {"dropout": 0.1, "encoder_layerdrop": 0.2, "use_dropout": True}
    _set_dropout(config, 0.5)
    assert (config.dropout, config.encoder_layerdrop, config.use_dropout) == (0.5, 0.0, True)


def test_the_packaged_model_loads() -> None:
    model = load_backbone(PACKAGED)
    assert model.config.hidden_size == 384  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "limit"), [("bert", 64), ("roberta", 63), ("mpnet", 62), ("qwen2", None), ("t5", None)]
)
def test_the_position_limit_is_the_longest_text_that_runs(tmp_path: Path, kind: str, limit: int | None) -> None:
    model = load_backbone(str(make_model(tmp_path, kind, layers=1))).eval()
    assert position_limit(model) == limit
    if limit is not None:
        ids = torch.full((1, limit + 1), 7)
        model(input_ids=ids[:, 1:])
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            model(input_ids=ids)


# ---- what is refused


def refused(folder: Path | str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)


def write_code(folder: Path) -> Path:
    """A model with code of its own that tells when it runs."""
    ran = folder / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import BertModel, BertConfig\n"
    code += "class OwnConfig(BertConfig): model_type = 'own'\nclass OwnModel(BertModel): config_class = OwnConfig\n"
    (folder / "own.py").write_text(code)
    return ran


@pytest.mark.parametrize("model_type", ["bert", "own"])
def test_code_that_comes_with_a_model_is_refused_and_not_run(folder: Path, model_type: str) -> None:
    ran = write_code(folder)
    names = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    edit_config(folder, auto_map=names, model_type=model_type)
    refused(folder, "Nothing was run: set trust_remote_code: true")
    assert not ran.exists()


def test_trusted_code_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    ran = write_code(folder)
    edit_config(folder, auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}, model_type="own")
    assert type(load_backbone(str(folder), trust_remote_code=True)).__name__ == "OwnModel"
    assert ran.exists()


class Trap:
    """Pickles as a call that makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_pickled_weights_are_refused_and_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    refused(folder, "holds no .safetensors weights; pickles .* use_safetensors=False")
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_beside_others_are_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    torch.save({"weight": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    refused(folder, "cannot load the model")
    assert not (tmp_path / "ran").exists()


def test_the_advice_on_pickled_weights_works(folder: Path) -> None:
    expected = load_backbone(str(folder)).state_dict()
    torch.save(AutoModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError) as caught:
        load_backbone(str(folder))
    exec(str(caught.value).split('python -c "')[1].removesuffix('"'))
    assert all(torch.equal(value, expected[name]) for name, value in load_backbone(str(folder)).state_dict().items())


def test_weights_that_are_absent_are_not_made_up(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=2)
    refused(folder, "lack 16 tensors: encoder.layer.1")


def test_a_pooling_layer_without_weights_is_not_made_up(folder: Path) -> None:
    load_backbone(str(folder)).save_pretrained(folder)  # type: ignore[operator]
    load_backbone(str(folder))
    with pytest.raises(ConfigError, match=r"lack 2 tensors: pooler\.dense"):
        load_backbone(str(folder), pooling_layer=True)


def test_other_faults_have_a_line_of_their_own(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path, "holds no config.json")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:500])
    refused(folder, "cannot load the model")
    weights.write_bytes(whole)
    edit_config(folder, intermediate_size=17)
    refused(folder, "cannot load the model")
    edit_config(folder, model_type="unheard-of", intermediate_size=64)
    refused(folder, "cannot load the model.*unheard-of")
    (folder / "config.json").write_text("{")
    refused(folder, "config.json is not JSON")


def test_a_model_that_is_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="model 'no-such-model': no such folder here, and none from the Hub"):
        model_folder("no-such-model")
    with pytest.raises(DataError, match="does not exist"):
        model_folder(str(tmp_path / "absent"))


def test_loading_is_silent_and_leaves_the_settings_of_transformers(folder: Path, capfd: pytest.CaptureFixture) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_backbone(str(folder))
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.INFO)
    try:
        with pytest.raises(KeyError), quiet():
            raise KeyError
        assert transformers_logging.get_verbosity() == logging.INFO
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(before[0])
        transformers_logging.enable_progress_bar()


# ---- from a config


def test_the_encoder_of_a_config_has_its_settings(tmp_path: Path) -> None:
    keys = {"tf_pooler": "last", "bottleneck_dim": 7, "dropout": 0.2, "norm_embs": False, "tf_dropout": 0.0}
    model = build_encoder(load_config([write_config(tmp_path, **keys)]), CPU)
    found = (model.pooler, model.width, model.dropout, model.normalize, model.precision)
    assert found == ("last", 7, 0.2, False, "fp32")
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.0}


def test_the_projection_is_drawn_from_the_seed(tmp_path: Path) -> None:
    def projection(seed: int) -> torch.Tensor:
        model = build_encoder(load_config([write_config(tmp_path, bottleneck_dim=7, seed=seed)]), CPU)
        assert model.bottleneck is not None
        return model.bottleneck.weight

    assert torch.equal(projection(3), projection(3))
    assert not torch.equal(projection(3), projection(4))


def test_texts_longer_than_the_positions_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tf_max_len: 65 tokens, but '.*model' has positions for 64: lower it"):
        build_encoder(load_config([write_config(tmp_path, tf_max_len=65)]), CPU)


def test_a_pooling_layer_that_cannot_be_exported_is_refused_at_the_start(tmp_path: Path) -> None:
    config = write_config(tmp_path, tf_pooler="pooler")
    shutil.rmtree(tmp_path / "model")
    from transformers import AlbertConfig, AlbertModel

    sizes = {"hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    AlbertModel(AlbertConfig(vocab_size=64, num_hidden_layers=1, **sizes)).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="pooling layer of AlbertModel has no counterpart"):
        build_encoder(load_config([config]), CPU)
    assert build_encoder(load_config([config], overrides={"save": False}), CPU).pooler == "pooler"


def test_auto_precision_is_half_only_where_asked_for_and_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("auto", False, CPU) == "fp32"
    assert resolve_precision("fp16", True, CPU) == "fp16"
    for avx, amx, expected in ((False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert resolve_precision("auto", True, CPU) == expected
