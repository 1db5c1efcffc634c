"""Loading a transformer: a Hub id, a local directory, or weights that an installed Python package carries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
from transformers.utils import logging as transformers_logging

from dexml.config import Config, ConfigError
from dexml.data.hubfolder import PASSIVE, Download, HubError, first_line, hub_folder
from dexml.data.package import resolve_model
from dexml.encoders.bilstm import BiLSTM, is_bilstm
from dexml.encoders.directory import pooling_linear
from dexml.encoders.states import StateEncoder
from dexml.encoders.text import Precision, TextEncoder, first_position, position_table
from dexml.encoders.words import make_bilstm, sparse_words


def model_folder(name: str, *, trust_remote_code: bool = False, **download: Unpack[Download]) -> Path:
    """The folder of the model `name`, downloaded if it is a Hub id: no pickle, and no code unless trusted.

    Raises:
        ConfigError, DataError: neither here nor on the Hub; a packaged model whose weights are not the published ones.
    """
    place = resolve_model(name, check=True)
    if Path(place).is_dir():
        return Path(place)
    try:
        return hub_folder(place, [*PASSIVE, *["*.py"] * trust_remote_code], **download)
    except HubError as error:
        raise ConfigError(f"model '{name}': no such folder here, and none from the Hub: {error}") from error


def load_backbone(
    name: str, *, pooling_layer: bool = False, dropout: float | None = None, trust_remote_code: bool = False
) -> nn.Module:
    """The transformer `name` with float32 weights; of a T5 its encoder.

    Args:
        pooling_layer: keep the model's own pooling layer; leave it out otherwise, where the model can.
        dropout: replaces every dropout probability of the model's config.
    Raises:
        ConfigError: no such model here or on the Hub, or files that are missing, unreadable, pickled or hold code.
    """
    folder = model_folder(name, trust_remote_code=trust_remote_code)
    if is_bilstm(folder):
        return BiLSTM.from_pretrained(folder)
    _check_files(name, folder, trust_remote_code)
    try:
        with quiet():
            model, report = _from_pretrained(folder, pooling_layer, dropout, trust_remote_code)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"tf: cannot load the model '{name}': {first_line(error)}") from error
    # transformers would go on with random numbers; a pooling layer may be absent where nothing uses it
    absent = sorted(key for key in report["missing_keys"] if pooling_layer or not key.startswith("pooler."))
    if absent:
        raise ConfigError(f"tf: the weights of '{name}' lack {len(absent)} tensors: {', '.join(absent[:5])}")
    return model


def _from_pretrained(
    folder: Path, pooling_layer: bool, dropout: float | None, trust_remote_code: bool
) -> tuple[nn.Module, dict[str, Any]]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if dropout is not None:
        _set_dropout(config, dropout)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values for generating text: memory for nothing
    # T5EncoderModel and its like save a config that no longer says is_encoder_decoder
    half = config.is_encoder_decoder or any(name.endswith("EncoderModel") for name in config.architectures or ())
    auto = AutoModelForTextEncoding if half else AutoModel
    options = {
        "config": config,
        "trust_remote_code": trust_remote_code,
        "dtype": torch.float32,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    try:
        return auto.from_pretrained(folder, add_pooling_layer=pooling_layer, **options)
    except TypeError as error:  # models without a pooling layer do not know the argument
        if "add_pooling_layer" not in str(error):
            raise
        return auto.from_pretrained(folder, **options)


def _check_files(name: str, folder: Path, trust_remote_code: bool) -> None:
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"tf: {folder} holds no config.json: it is not the folder of a transformer")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"tf: {file} is not JSON: {error}") from error
    if "auto_map" in config and not trust_remote_code:
        raise ConfigError(
            f"tf: {file} asks to run Python code that comes with the model (auto_map). Nothing was run: set "
            f"trust_remote_code: true if you have read it, or delete auto_map to use transformers' own code"
        )
    if not any(folder.glob("*.safetensors")):
        source, target = (folder, folder) if resolve_model(name) == str(folder) else (name, Path(name).name)
        raise ConfigError(
            f"tf: {folder} holds no .safetensors weights; pickles (.bin, .pt) are not read, because they can run code. "
            f'Convert those you trust, and name that folder: python -c "from transformers import AutoModel as A; '
            f"A.from_pretrained('{source}', use_safetensors=False).save_pretrained('{target}')\""
        )


def _set_dropout(config: Any, p: float) -> None:
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, key, 0.0 if "layerdrop" in key else p)  # layerdrop skips whole layers


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and its report on the pooling weights that are left out on purpose."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def position_limit(backbone: nn.Module) -> int | None:
    """Most tokens of a text: the rows of the learnt position table, None for relative or rotary positions."""
    table = position_table(backbone)
    if table is None:
        return None
    rows = table.num_embeddings
    return min(rows - first_position(backbone), getattr(backbone.config, "max_position_embeddings", rows))


def resolve_precision(wanted: str, amp: bool, device: torch.device) -> Precision:
    """`auto` is float32 without autocast, else bfloat16 where the processor computes in it, else float16 on CUDA."""
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if not amp:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def build_encoder(cfg: Config, device: torch.device) -> TextEncoder:
    """The encoder a config describes, on `device`, with new weights drawn from `seed`.

    Raises:
        ConfigError: see `load_backbone`; keys that contradict each other or the model.
    """
    backbone = _word_reader(cfg) if cfg.has_bilstm else _transformer(cfg)
    limit = position_limit(backbone)
    if limit is not None and cfg.tf_max_len > limit:
        raise ConfigError(f"tf_max_len: {cfg.tf_max_len} tokens, but '{cfg.tf}' has positions for {limit}: lower it")
    torch.manual_seed(cfg.seed)
    precision = "fp32" if cfg.has_bilstm else resolve_precision(cfg.precision, cfg.amp_encode, device)
    if cfg.reads_states:
        encoder: TextEncoder = StateEncoder(backbone, precision)
    else:
        encoder = TextEncoder(
            backbone,
            cfg.tf_pooler,
            cfg.bottleneck_dim,
            cfg.dropout,
            cfg.normalizes,
            precision,
            cfg.pooled_layers,
            cfg.pooled_segments,
        )
    if cfg.save and cfg.tf_pooler == "pooler":
        pooling_linear(backbone)  # tells now, not after the training, that there is no way to export it
    if cfg.grad_checkpointing:
        encoder.checkpoint_gradients()
    if cfg.compile:
        encoder.tf.compile(dynamic=True)
    return encoder.to(device)


def _transformer(cfg: Config) -> nn.Module:
    return load_backbone(
        cfg.tf,
        pooling_layer=cfg.tf_pooler == "pooler",
        dropout=cfg.tf_dropout,
        trust_remote_code=cfg.trust_remote_code,
    )


def _word_reader(cfg: Config) -> BiLSTM:
    """A new BiLSTM, or the one whose folder `tf` names, as in a bundle."""
    folder = Path(cfg.tf)
    if is_bilstm(folder):
        model = BiLSTM.from_pretrained(folder)
    else:
        words = load_backbone(cfg.tf).get_input_embeddings().weight.detach() if cfg.word_vectors == "tf" else None  # type: ignore[operator]
        model = make_bilstm(cfg, words)
    if cfg.optim == "lazyadam" and cfg.train_words:
        sparse_words(model)
    return model
