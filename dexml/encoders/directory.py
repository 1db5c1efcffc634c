"""The files of a sentence-transformers directory, beside those of the transformer and the tokenizer.

Module names are written in the spelling of sentence-transformers before 5.4, which every release loads, with pooling
and projection settings spelled out, because their defaults (mean, Tanh) are not ours. Both spellings are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dexml.config import ConfigError
from dexml.encoders.text import Pooler, TextEncoder, hidden_width

POOLING_FLAGS: dict[str, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}
OTHER_FLAGS = (
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
)
LEGACY = "sentence_transformers.models."
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"


@dataclass
class Layout:
    """What a directory says about its encoder; a dense layer is its weight and bias."""

    transformer: Path
    pooler: Pooler = "mean"
    normalize: bool = False
    max_len: int | None = None
    """None: the tokenizer tells."""
    lowercase: bool = False
    pooling_dense: dict[str, Tensor] | None = None
    """The transformer's own pooling layer: a square layer and tanh after the first token."""
    dense: dict[str, Tensor] | None = None


def read_layout(folder: Path) -> Layout | None:
    """The layout of a sentence-transformers directory; None for any other.

    Raises:
        ConfigError: modules or settings other than transformer, pooling, linear projection, normalisation.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = _read(folder / "modules.json")
    kinds = [_kind(folder, module["type"]) for module in modules]
    places = [folder / module["path"] for module in modules]
    middle = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(middle) - {"Dense"}:
        raise ConfigError(
            f"{folder / 'modules.json'}: modules {', '.join(kinds)} are not supported; "
            f"these are, in this order: Transformer, Pooling, Dense (may be absent), Normalize (may be absent)"
        )
    _refuse_prompt(folder / "config_sentence_transformers.json")
    layout = Layout(places[0], _pooling(places[1] / "config.json"), normalize="Normalize" in kinds)
    _read_transformer(layout)
    for place in places[2 : 2 + len(middle)]:
        _read_dense(layout, place)
    return layout


def write_layout(folder: Path, model: TextEncoder, max_len: int) -> None:
    """Writes the modules of `model`. ConfigError if sentence-transformers has none for its pooler."""
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_len, "do_lower_case": False})
    similarity = "cosine" if model.normalize else "dot"
    prompts: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": similarity}
    _write(folder / "config_sentence_transformers.json", {"__version__": {}, **prompts})
    denses = [(pooling_linear(model.tf), TANH)] if model.pooler == "pooler" else []
    denses += [(model.bottleneck, IDENTITY)] if model.bottleneck is not None else []
    names = ["Transformer", "Pooling"] + ["Dense"] * len(denses) + ["Normalize"] * model.normalize
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    token = "cls" if model.pooler == "pooler" else model.pooler
    flags = {flag: name == token for name, flag in POOLING_FLAGS.items()} | dict.fromkeys(OTHER_FLAGS, False)
    _write(folder / paths[1] / "config.json", {"word_embedding_dimension": hidden_width(model.tf), **flags})
    for path, (linear, activation) in zip(paths[2:], denses, strict=False):
        _write_dense(folder / path, linear, activation)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": LEGACY + name}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)


def pooling_linear(backbone: nn.Module) -> nn.Linear:
    """The layer of a pooling layer like BERT's, tanh(linear(first token)); ConfigError for any other."""
    layer = getattr(getattr(backbone, "pooler", None), "dense", None)
    if not isinstance(layer, nn.Linear) or layer.in_features != layer.out_features:
        raise ConfigError(
            f"tf_pooler: the pooling layer of {type(backbone).__name__} has no counterpart in sentence-transformers; "
            f"use cls, mean or last"
        )
    return layer


def _kind(folder: Path, name: str) -> str:
    if not name.startswith("sentence_transformers."):
        raise ConfigError(f"{folder / 'modules.json'}: module {name} is code of its own, which is not run")
    return name.rsplit(".", 1)[-1]


def _read_transformer(layout: Layout) -> None:
    # one of sentence_bert_config.json, sentence_roberta_config.json, ...: old releases named it after the model
    files = sorted(layout.transformer.glob("sentence_*_config.json"))
    settings = _read(files[0]) if files else {}
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise ConfigError(f"{files[0]}: transformer_task {settings['transformer_task']} is not supported")
    layout.max_len = settings.get("max_seq_length")
    layout.lowercase = bool(settings.get("do_lower_case"))


def _pooling(file: Path) -> Pooler:
    config = _read(file)
    if "pooling_mode" in config:  # spelling since sentence-transformers 5.4
        chosen = [{"lasttoken": "last"}.get(str(config["pooling_mode"]), str(config["pooling_mode"]))]
    else:
        chosen = [name for name, flag in POOLING_FLAGS.items() if config.get(flag)]
        chosen += [flag for flag in OTHER_FLAGS if config.get(flag)]
    if len(chosen) != 1 or chosen[0] not in POOLING_FLAGS:
        found = ", ".join(chosen) or "none"
        raise ConfigError(f"{file}: pooling is {found}; exactly one of {', '.join(POOLING_FLAGS)} is supported")
    return chosen[0]  # type: ignore[return-value]


def _refuse_prompt(file: Path) -> None:
    config = _read(file) if file.is_file() else {}
    name = config.get("default_prompt_name")
    if name and config.get("prompts", {}).get(name):
        raise ConfigError(
            f"{file}: default_prompt_name {name!r} puts words before every text, which is not supported here: "
            f"set it to null and write the prompt into the texts"
        )


def _read_dense(layout: Layout, folder: Path) -> None:
    config = _read(folder / "config.json")
    activation = str(config.get("activation_function", TANH))  # the meaning of a missing key
    first = layout.dense is None and layout.pooling_dense is None
    if activation == TANH and first and layout.pooler == "cls" and not config.get("use_residual"):
        layout.pooler, layout.pooling_dense = "pooler", _dense_weights(folder)
    elif activation.endswith(".Identity") and layout.dense is None and not config.get("use_residual"):
        layout.dense = _dense_weights(folder)
    else:
        raise ConfigError(
            f"{folder}: this Dense ({activation}) is not supported; one without activation and residual is, "
            f"and before it one with Tanh on the cls token"
        )


def _dense_weights(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ConfigError(f"{file} does not exist; a pickled pytorch_model.bin is not read, because it can run code")
    try:
        found = {name.removeprefix("linear."): value for name, value in load_file(file).items()}
    except SafetensorError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if "weight" not in found:
        raise ConfigError(f"{file} holds no linear.weight")
    return {"bias": found["weight"].new_zeros(len(found["weight"])), **found}


def _write_dense(folder: Path, linear: nn.Linear, activation: str) -> None:
    sizes = {"in_features": linear.in_features, "out_features": linear.out_features, "bias": True}
    _write(folder / "config.json", {**sizes, "activation_function": activation})
    weights = {f"linear.{name}": value.detach().cpu().contiguous() for name, value in linear.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist, but the other files of the folder ask for it") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
