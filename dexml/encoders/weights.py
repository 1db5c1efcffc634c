"""Starting weights: safetensors, a checkpoint or bundle directory, or the `model.pt` of DEXML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dexml.config import ConfigError
from dexml.encoders.directory import read_layout
from dexml.encoders.text import TextEncoder

POOLING_LAYER = "tf.pooler."


def load_weights(encoder: TextEncoder, path: Path, beside: str = "") -> dict[str, Tensor]:
    """Copies weights named as in DEXML (`tf.` and the transformer's own names, `bottleneck.*`) into `encoder`.

    A plain transformer file (names without `tf.`) is taken too, and a bundle with its projection. Only tensors are
    read, no code runs. `position_ids` and a pooling layer that nothing uses are passed over. Tensors whose names begin
    with `beside` are no part of the encoder and are given back.

    Raises:
        ConfigError: the file is absent or unreadable, or names or shapes are missing or unexpected; it lists them.
    """
    found = {name: value for name, value in _read(path).items() if not name.endswith("position_ids")}
    others = {name: found.pop(name) for name in list(found) if beside and name.startswith(beside)}
    own = encoder.state_dict()
    if encoder.pooler != "pooler":
        own = {name: value for name, value in own.items() if not name.startswith(POOLING_LAYER)}
        found = {name: value for name, value in found.items() if not name.startswith(POOLING_LAYER)}
    present = {own[name].data_ptr() for name in own.keys() & found.keys()}  # a shared tensor may have several names
    problems = [f"missing {name}" for name in own if name not in found and own[name].data_ptr() not in present]
    problems += [f"unexpected {name}" for name in found if name not in own]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in found and own[name].shape != found[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ConfigError(f"{path} does not fit this encoder: {'; '.join(problems[:8])}{more}")
    encoder.load_state_dict(found, strict=False)
    return others


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of `path`, by the names that `TextEncoder` has for them."""
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file} does not exist")
    found = {name.removeprefix("module."): value for name, value in _tensors(file).items()}
    if any(name.startswith("tf.") for name in found):
        return found
    bottleneck = {name: value for name, value in found.items() if name.startswith("bottleneck.")}
    plain = {f"tf.{name}": value for name, value in found.items() if name not in bottleneck}
    layout = read_layout(path) if path.is_dir() else None
    dense = layout.dense or {} if layout else {}
    return plain | bottleneck | {f"bottleneck.{name}": value for name, value in dense.items()}


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        found: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # each format has errors of its own
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{file} holds no weights that can be read safely ({reason})") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"{file} is no state dict: it must map names to tensors, nothing else")
    return found
