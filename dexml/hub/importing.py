"""Bundles of models that were trained elsewhere: DEXML's checkpoints, and any sentence-transformers model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from dexml.config import Config, ConfigError, load_config
from dexml.data.files import DataError
from dexml.data.textfile import Lines
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.directory import read_layout
from dexml.encoders.encoder import Encoder
from dexml.encoders.pretrained import build_encoder, model_folder
from dexml.encoders.weights import load_weights
from dexml.hub.bundle import fill_bundle, vectors_writer
from dexml.hub.cardtext import Given
from dexml.hub.package import packed, write_package

CLASSIFIER = "all_w."
"""Begins the names of DEXML's label weights [L and padding, D] and biases."""
MOST_PADDING = 64
"""DEXML adds rows until its processes hold equally many: fewer than there are processes."""
WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")

Labels = Sequence[str]
WriteHead = Callable[[Path, Mapping[str, str]], None]


def import_model(
    model: str, folder: Path, config: Path | None = None, labels: Path | None = None, keys: Sequence[str] = ()
) -> int:
    """Writes the bundle and gives the number of its labels.

    Args:
        keys: words that change the config, such as `--tf_pooler cls`.
    Raises:
        ConfigError, DataError: no config or labels where they are needed; weights that do not fit them.
    """
    if Path(model).suffix in WEIGHTS:
        cfg = load_config([config or Path(model).with_name("config.yaml")], keys)
        texts = _labels(cfg, labels)
        encoder, write_head = _trained(cfg, Path(model), texts)
    else:
        cfg, encoder = _pretrained(model, config, labels, keys)
        texts = _labels(cfg, labels)
        write_head = vectors_writer(encoder.encode(texts))
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place)
        fill_bundle(bundle, encoder, texts, write_head, cfg)
        with packed(bundle, str(folder), Given()) as files:
            write_package(files, folder)
    return len(texts)


def _labels(cfg: Config, labels: Path | None) -> Labels:
    path = labels or cfg.data_dir / "raw" / "Y.txt"
    if not path.is_file():
        raise DataError(f"{path}: no such file: give the label texts, one a line, with --labels")
    return Lines(path)


def _pretrained(model: str, config: Path | None, labels: Path | None, keys: Sequence[str]) -> tuple[Config, Encoder]:
    """A model as it is: a sentence-transformers directory tells all, for any other the config does."""
    name = ["--tf", model, *(["--dataset", labels.stem] if labels and not config else [])]
    layout = read_layout(model_folder(model))
    if layout is None or config or keys:
        cfg = load_config([config] if config else [], [*name, *keys])
        if cfg.bottleneck_dim:
            raise ConfigError(
                f"bottleneck_dim is {cfg.bottleneck_dim}: '{model}' has no weights for it; give a .pt file"
            )
        return cfg, _encoder(cfg)
    encoder = Encoder.load(model)
    own = {
        "tf_pooler": layout.pooler,
        "tf_max_len": encoder.max_len,
        "norm_embs": layout.normalize,
        "bottleneck_dim": len(layout.dense["weight"]) if layout.dense else 0,
    }
    return load_config([], name + [word for key, value in own.items() for word in (f"--{key}", str(value))]), encoder


def _encoder(cfg: Config) -> Encoder:
    built = build_encoder(cfg, torch.device("cpu")).eval()
    built.precision = "fp32"
    return Encoder(built, load_tokenizer(cfg.tokenizer_name), cfg.tf_max_len)


def _trained(cfg: Config, weights: Path, labels: Labels) -> tuple[Encoder, WriteHead]:
    """DEXML's encoder with its weights, and vectors of the labels: their texts', or a classifier's own."""
    encoder = _encoder(cfg)
    rows = load_weights(encoder.model, weights, beside=CLASSIFIER if cfg.net == "dist-clf-net" else "")
    if cfg.net != "dist-clf-net":
        return encoder, vectors_writer(encoder.encode(labels))
    vectors, bias = (rows.get(f"{CLASSIFIER}{name}") for name in ("weight", "bias"))
    if vectors is None:
        raise ConfigError(f"{weights} holds no {CLASSIFIER}weight, which net dist-clf-net needs")
    if not 0 <= len(vectors) - len(labels) < MOST_PADDING:
        raise ConfigError(f"{weights} has weights of {len(vectors)} labels, but there are {len(labels)} label texts")
    label_LD = vectors if bias is None else torch.cat([vectors, bias[:, None]], 1)
    return encoder, vectors_writer(label_LD[: len(labels)].float().numpy(), bias=bias is not None)
