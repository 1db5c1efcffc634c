import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dexml import Encoder
from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.data.package import resolve_model
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.pretrained import load_backbone
from dexml.encoders.text import Pooler, TextEncoder
from tests.encoders.test_pretrained import Trap
from tests.helpers.datasets import PACKAGED
from tests.helpers.models import make_model

TEXTS = [
    "red fox",
    "the old picture shows a very fine view of one garden near some silver river",
    "",
    "lamp",
    "unheard",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else make_model(root / kind, kind, layers=1)

    return folder


def encoder(folder: Path, pooler: Pooler = "mean", max_len: int = 12, **settings: Any) -> Encoder:
    backbone = load_backbone(str(folder), pooling_layer=pooler == "pooler")
    return Encoder(TextEncoder(backbone, pooler, **settings).eval(), load_tokenizer(str(folder)), max_len)


def by_sentence_transformers(folder: str | Path, texts: list[str] = TEXTS) -> NDArray[np.float32]:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)


def edit(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


# ---- encode


def test_vectors_are_those_of_each_text_alone_in_the_order_given(models: Callable[[str], Path]) -> None:
    whole = encoder(models("bert"))
    found = whole.encode(TEXTS * 3, batch_size=4)
    assert found.dtype == np.float32 and found.shape == (15, 32)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(found[i::5], np.repeat(whole.encode([text]), 3, 0), atol=1e-6)
    assert whole.encode([]).shape == (0, 32)


def test_texts_are_stripped_and_cut(models: Callable[[str], Path]) -> None:
    whole = encoder(models("bert"), max_len=4)
    np.testing.assert_array_equal(whole.encode(["  red fox\n"]), whole.encode(["red fox"]))
    np.testing.assert_array_equal(whole.encode(["red fox boat"]), whole.encode(["red fox"]))
    assert not np.array_equal(whole.encode(["red fox boat"], max_len=5), whole.encode(["red fox"]))


def test_encoding_keeps_the_training_mode_and_drops_nothing(models: Callable[[str], Path]) -> None:
    whole = encoder(models("bert"))
    expected = whole.encode(TEXTS)
    whole.model.train()
    np.testing.assert_array_equal(whole.encode(TEXTS), expected)
    assert whole.model.training


def test_one_text_instead_of_a_list_and_too_long_a_length_are_refused(models: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="takes a list of texts"):
        encoder(models("bert")).encode("red fox")
    with pytest.raises(ValueError, match="max_len 65: this model has positions for 64 tokens"):
        encoder(models("bert")).encode(["red fox"], max_len=65)


# ---- save, load, and the same vectors from sentence-transformers


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bottleneck", [0, 6])
@pytest.mark.parametrize(
    ("kind", "pooler"),
    [
        ("bert", "cls"),
        ("bert", "mean"),
        ("bert", "pooler"),
        ("distilbert", "cls"),
        ("roberta", "mean"),
        ("qwen2", "last"),
        ("t5", "mean"),
    ],
)
def test_a_saved_encoder_gives_the_same_vectors_loaded_and_in_sentence_transformers(
    models: Callable[[str], Path], tmp_path: Path, kind: str, pooler: Pooler, bottleneck: int, normalize: bool
) -> None:
    saved = encoder(models(kind), pooler, bottleneck=bottleneck, normalize=normalize)
    expected = saved.encode(TEXTS)
    saved.save(tmp_path / "best")
    loaded = Encoder.load(tmp_path / "best")
    assert (loaded.model.pooler, loaded.width, loaded.model.normalize) == (pooler, bottleneck or 32, normalize)
    assert loaded.max_len == 12 and not loaded.model.training
    np.testing.assert_array_equal(loaded.encode(TEXTS), expected)
    np.testing.assert_allclose(by_sentence_transformers(tmp_path / "best"), expected, rtol=0, atol=1e-5)


def test_a_tokenizer_that_pads_on_the_left_is_saved_for_the_right(tmp_path: Path) -> None:
    make_model(tmp_path / "model", layers=1)
    edit(tmp_path / "model" / "tokenizer_config.json", padding_side="left")
    saved = encoder(tmp_path / "model")
    saved.save(tmp_path / "best")
    np.testing.assert_allclose(by_sentence_transformers(tmp_path / "best"), saved.encode(TEXTS), rtol=0, atol=1e-5)


def test_the_files_are_those_that_every_release_loads(models: Callable[[str], Path], tmp_path: Path) -> None:
    encoder(models("bert"), "cls", bottleneck=6).save(tmp_path / "best")
    names = {str(file.relative_to(tmp_path / "best")) for file in (tmp_path / "best").rglob("*") if file.is_file()}
    settings = {"config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
    modules = {"1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"}
    assert names == settings | modules | {"model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    read = lambda name: json.loads((tmp_path / "best" / name).read_text())  # noqa: E731
    assert [(m["idx"], m["name"], m["path"], m["type"]) for m in read("modules.json")] == [
        (0, "0", "", "sentence_transformers.models.Transformer"),
        (1, "1", "1_Pooling", "sentence_transformers.models.Pooling"),
        (2, "2", "2_Dense", "sentence_transformers.models.Dense"),
        (3, "3", "3_Normalize", "sentence_transformers.models.Normalize"),
    ]
    pooling = read("1_Pooling/config.json")
    assert pooling.pop("word_embedding_dimension") == 32
    assert {name for name, on in pooling.items() if on} == {"pooling_mode_cls_token"} and len(pooling) >= 4
    identity = "torch.nn.modules.linear.Identity"
    assert read("2_Dense/config.json") == {
        "in_features": 32,
        "out_features": 6,
        "bias": True,
        "activation_function": identity,
    }
    assert read("sentence_bert_config.json") == {"max_seq_length": 12, "do_lower_case": False}
    assert read("config_sentence_transformers.json")["similarity_fn_name"] == "cosine"
    assert read("tokenizer_config.json")["model_max_length"] == 12


def test_saving_over_an_older_encoder_replaces_it_and_leaves_nothing_beside(
    models: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    encoder(models("bert"), bottleneck=6).save(tmp_path / "best")
    capfd.readouterr()
    encoder(models("distilbert")).save(tmp_path / "best")
    assert capfd.readouterr() == ("", "")
    np.testing.assert_array_equal(
        Encoder.load(tmp_path / "best").encode(TEXTS), encoder(models("distilbert")).encode(TEXTS)
    )
    assert [file.name for file in tmp_path.iterdir()] == ["best"]


def test_a_pooling_layer_unlike_that_of_bert_is_not_saved(models: Callable[[str], Path], tmp_path: Path) -> None:
    unlike = encoder(models("bert"), "pooler")
    unlike.model.tf.pooler.dense = nn.Identity()
    with pytest.raises(
        ConfigError, match=r"tf_pooler: .*no counterpart in sentence-transformers; use cls, mean or last"
    ):
        unlike.save(tmp_path / "best")


# ---- directories that others wrote


def test_the_packaged_model_equals_sentence_transformers() -> None:
    loaded = Encoder.load(PACKAGED)
    assert (loaded.model.pooler, loaded.model.normalize, loaded.max_len, loaded.width) == ("mean", True, 256, 384)
    expected = by_sentence_transformers(resolve_model(PACKAGED))
    np.testing.assert_allclose(loaded.encode(TEXTS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
def test_directories_of_sentence_transformers_itself_load(
    models: Callable[[str], Path], tmp_path: Path, mode: str
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(1)
    dense = Dense(32, 6, bias=mode != "cls", activation_function=nn.Identity())
    modules = [
        Transformer(str(models("roberta"))),
        Pooling(32, pooling_mode=mode),
        dense,
        *[Normalize()] * (mode != "cls"),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "theirs"))
    found = Encoder.load(tmp_path / "theirs")
    assert found.max_len == 63  # RoBERTa has one position fewer than its table has rows
    np.testing.assert_allclose(found.encode(TEXTS), by_sentence_transformers(tmp_path / "theirs"), rtol=0, atol=1e-5)


def test_a_transformer_in_a_folder_of_its_own_loads(models: Callable[[str], Path], tmp_path: Path) -> None:
    encoder(models("bert")).save(tmp_path)
    (tmp_path / "0_Transformer").mkdir()
    for file in [file for file in tmp_path.iterdir() if file.is_file() and file.name != "modules.json"]:
        file.rename(tmp_path / "0_Transformer" / file.name.replace("sentence_bert", "sentence_distilbert"))
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    loaded = Encoder.load(tmp_path)
    assert loaded.max_len == 12
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder(models("bert")).encode(TEXTS))


def test_a_plain_transformer_is_pooled_as_asked_and_normalised(models: Callable[[str], Path]) -> None:
    loaded = Encoder.load(models("bert"), pooler="cls", max_len=7)
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder(models("bert"), "cls", 7).encode(TEXTS))
    assert Encoder.load(models("bert")).max_len == 64  # the default of 128 is more than there are positions


# ---- what is refused


@pytest.fixture
def best(models: Callable[[str], Path], tmp_path: Path) -> Path:
    encoder(models("bert"), bottleneck=6).save(tmp_path / "best")
    return tmp_path / "best"


def refused(folder: Path | str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Encoder.load(folder)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            ["Transformer", "WeightedLayerPooling", "Pooling"],
            "modules Transformer, WeightedLayerPooling, Pooling are not",
        ),
        (["Transformer", "Pooling", "Normalize", "Dense"], "Transformer, Pooling, Normalize, Dense are not supported"),
        (["Transformer"], "modules Transformer are not supported"),
        (["Transformer", "Pooling", "Dense", "Dense"], "this Dense .* is not supported"),
    ],
)
def test_other_modules_are_refused(best: Path, kinds: list[str], message: str) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": paths.get(kind, kind)} for kind in kinds]
    (best / "modules.json").write_text(json.dumps(modules))
    refused(best, message)


def test_a_module_with_code_of_its_own_is_refused(best: Path) -> None:
    modules = json.loads((best / "modules.json").read_text())
    modules[0]["type"] = "custom.Transformer"
    (best / "modules.json").write_text(json.dumps(modules))
    refused(best, r"module custom\.Transformer is code of its own, which is not run")


@pytest.mark.parametrize(
    ("file", "keys", "message"),
    [
        ("2_Dense", {"activation_function": "torch.nn.modules.activation.Tanh"}, "this Dense .*Tanh"),
        ("2_Dense", {"activation_function": "torch.nn.modules.activation.ReLU"}, "this Dense .*ReLU"),
        ("2_Dense", {"use_residual": True}, "this Dense"),
        ("1_Pooling", {"pooling_mode_max_tokens": True}, "pooling is mean, pooling_mode_max_tokens"),
        ("1_Pooling", {"pooling_mode_mean_tokens": False}, "pooling is none"),
        ("1_Pooling", {"pooling_mode": "weightedmean"}, "pooling is weightedmean"),
        ("1_Pooling", {"pooling_mode": ["cls", "mean"]}, r"pooling is \['cls', 'mean'\]"),
    ],
)
def test_other_settings_are_refused(best: Path, file: str, keys: dict[str, Any], message: str) -> None:
    edit(best / file / "config.json", **keys)
    refused(best, message)


def test_prompts_and_tasks_that_change_the_vectors_are_refused(best: Path) -> None:
    edit(best / "config_sentence_transformers.json", prompts={"query": "search: "}, default_prompt_name="query")
    refused(best, "default_prompt_name 'query'")
    edit(best / "config_sentence_transformers.json", default_prompt_name=None)
    assert Encoder.load(best).width == 6
    edit(best / "sentence_bert_config.json", transformer_task="fill-mask")
    refused(best, "transformer_task fill-mask is not supported")


def test_lower_case_is_refused_unless_the_tokenizer_does_it(best: Path) -> None:
    edit(best / "sentence_bert_config.json", do_lower_case=True)
    assert Encoder.load(best).width == 6
    tokenizer = json.loads((best / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (best / "tokenizer.json").write_text(json.dumps(tokenizer))
    edit(best / "tokenizer_config.json", do_lower_case=False)
    refused(best, "do_lower_case is not supported")


def test_a_pickled_projection_is_refused_and_not_read(best: Path, tmp_path: Path) -> None:
    (best / "2_Dense" / "model.safetensors").unlink()
    torch.save({"linear.weight": Trap(tmp_path / "ran")}, best / "2_Dense" / "pytorch_model.bin")
    refused(best, r"2_Dense/model\.safetensors does not exist; a pickled pytorch_model\.bin is not read")
    assert not (tmp_path / "ran").exists()


def test_a_projection_of_another_width_is_refused(best: Path) -> None:
    from safetensors.torch import save_file

    save_file({"linear.weight": torch.zeros(6, 31), "linear.bias": torch.zeros(6)}, best / "2_Dense/model.safetensors")
    refused(best, r"a Dense module has shape \(6, 31\), the modules beside it ask for \(6, 32\)")


def test_missing_and_damaged_files_are_named(best: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model folder .*absent' does not exist"):
        Encoder.load(tmp_path / "absent")
    (best / "1_Pooling" / "config.json").unlink()
    refused(best, r"1_Pooling/config\.json does not exist")
    (best / "modules.json").write_text("[")
    refused(best, r"modules\.json is not JSON")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"empty holds no config\.json")
