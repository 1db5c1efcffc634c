"""Starting weights: safetensors, a checkpoint or bundle directory, or the `model.pt` of DEXML."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dexml.config import ConfigError
from dexml.encoders.text import TextEncoder


def load_weights(encoder: TextEncoder, path: Path) -> None:
    """Copies weights named as in DEXML (`tf.` and the transformer's own names, `bottleneck.*`) into `encoder`.

    A plain transformer file (names without `tf.`) is taken too. Only tensors are read, no code runs.

    Raises:
        ConfigError: the file is absent or unreadable, or names or shapes are missing or unexpected; it lists them.
    """
    found = {_plain(name): value for name, value in _read(path).items()}
    found = {name: value for name, value in found.items() if not name.endswith("position_ids")}
    if not any(name.startswith("tf.") for name in found):
        found = {f"tf.{name}": value for name, value in found.items()}
    own = encoder.state_dict()
    problems = [f"missing {name}" for name in own if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in own]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & found.keys()
        if own[name].shape != found[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ConfigError(f"resume_path: {path} does not fit this encoder: {'; '.join(problems[:8])}{more}")
    encoder.load_state_dict(found)


def _plain(name: str) -> str:
    return name.removeprefix("module.")


def _read(path: Path) -> dict[str, Tensor]:
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"resume_path: {file} does not exist")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        raise ConfigError(f"resume_path: {file} holds no weights that can be read ({error})") from error
