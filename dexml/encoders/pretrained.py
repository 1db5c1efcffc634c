"""Loading a transformer: a Hub id, a local directory, or weights that an installed Python package carries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from dexml.config import Config, ConfigError
from dexml.data.package import resolve_model
from dexml.encoders.text import Precision, TextEncoder


def load_backbone(
    name: str, *, pooling_layer: bool = False, dropout: float | None = None, trust_remote_code: bool = False
) -> nn.Module:
    """The transformer `name` with float32 weights.

    Args:
        pooling_layer: keep the model's own pooling layer; leave it out otherwise, where the model can.
        dropout: replaces every dropout probability of the model's config.
    Raises:
        ConfigError: no such model here or on the Hub, or its files do not load.
    """
    path = resolve_model(name, check=True)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if dropout is not None:
            _set_dropout(config, dropout)
        options: dict[str, Any] = {"config": config, "trust_remote_code": trust_remote_code, "dtype": torch.float32}
        with _quiet():
            try:
                return AutoModel.from_pretrained(path, add_pooling_layer=pooling_layer, **options)
            except TypeError:  # models without a pooling layer do not know the argument
                return AutoModel.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"tf: cannot load the model '{name}': {str(error).strip().splitlines()[0]}") from error


def _set_dropout(config: Any, p: float) -> None:
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, key, p)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report on the pooling weights that are left out on purpose."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


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
    """The encoder a config describes, on `device`, with new projection weights drawn from `seed`."""
    backbone = load_backbone(
        cfg.tf,
        pooling_layer=cfg.tf_pooler == "pooler",
        dropout=cfg.tf_dropout,
        trust_remote_code=cfg.trust_remote_code,
    )
    torch.manual_seed(cfg.seed)
    precision = resolve_precision(cfg.precision, cfg.amp_encode, device)
    encoder = TextEncoder(backbone, cfg.tf_pooler, cfg.bottleneck_dim, cfg.dropout, cfg.norm_embs, precision)
    if cfg.grad_checkpointing:
        encoder.checkpoint_gradients()
    if cfg.compile:
        encoder.tf.compile(dynamic=True)
    return encoder.to(device)
