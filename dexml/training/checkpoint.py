"""Checkpoints: everything a resume needs, in safetensors and JSON, checked and renamed into place.

A checkpoint is written to `.step-00000100.tmp/`, flushed to disk and renamed to `step-00000100/`, so a directory under its
final name is whole; its manifest (size and SHA-256 of every file) says so again when it is read.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dexml.data.files import sha256

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
NAME = re.compile(r"step-(\d{8})")


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass
class TrainState:
    """Counters and small state; tensors stand beside it in files of their own."""

    step: int = 0
    """Batches done; the sampler's position, since the order is a function of (seed, epoch)."""
    updates: int = 0
    """Optimiser updates done; the schedule's position."""
    best: dict[str, float] = field(default_factory=dict)
    """`value` of the tracked metric and the `step` it was reached at."""
    loss_sum: float = 0.0
    """Sum and count of step losses since the last evaluation."""
    loss_count: int = 0
    zero_losses: int = 0
    """Steps in a row whose loss was exactly 0."""
    loss_scale: dict[str, float] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    """What must be the same on resume: config, data, number of processes."""


# --- a directory, written and read as a whole -----------------------------------------------------------------------


def write_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Makes the directory `path` from what `fill` writes: complete with a manifest, or not there at all."""
    partial = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(partial)): {"size": p.stat().st_size, "sha256": sha256(p)} for p in files}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in [*files, partial / MANIFEST, partial]:
        _flush(file)
    replaced = path.with_name(f".{path.name}.old.tmp")
    if path.exists():
        path.rename(replaced)
    partial.rename(path)
    _flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def verify(path: Path) -> None:
    """Raises CheckpointError unless every file is there as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no readable {MANIFEST}: not a whole checkpoint") from error
    for name, expected in manifest.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != expected["size"] or sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file}: missing or changed since it was written; remove {path} to use an older one")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("step-*") if NAME.fullmatch(p.name))


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint; a damaged one is named in the log and passed over."""
    for path in reversed(checkpoints(folder)):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            log.warning("%s: trying the one before", error)
    return None


def save_checkpoint(
    folder: Path,
    state: TrainState,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: list[dict[str, Tensor]],
    extra: Callable[[Path], None],
) -> Path:
    """Writes `step-<step>`; `rng` holds `rng_state()` of every rank, `extra` writes what the label side remembers."""

    def fill(path: Path) -> None:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path / "model.safetensors")
        tensors, groups = _flat_optimizer(optimizer)
        save_file(tensors, path / "optimizer.safetensors")
        by_rank = {f"{rank}.{name}": value for rank, one in enumerate(rng) for name, value in one.items()}
        save_file(by_rank, path / "rng.safetensors")
        content = {**asdict(state), "optimizer_groups": groups}
        (path / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        extra(path)

    path = folder / f"step-{state.step:08d}"
    write_directory(path, fill)
    return path


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int
) -> TrainState:
    """Puts model, optimiser and this rank's random state back, and returns the counters."""
    content = json.loads((path / "state.json").read_text(encoding="utf-8"))
    groups = content.pop("optimizer_groups")
    model.load_state_dict(load_file(path / "model.safetensors"))
    _load_optimizer(optimizer, load_file(path / "optimizer.safetensors"), groups)
    rng = load_file(path / "rng.safetensors")
    set_rng_state({name.split(".", 1)[1]: value for name, value in rng.items() if name.startswith(f"{rank}.")})
    return TrainState(**content)


def read_state(path: Path) -> TrainState:
    """The counters alone."""
    content = json.loads((path / "state.json").read_text(encoding="utf-8"))
    content.pop("optimizer_groups")
    return TrainState(**content)


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Deletes checkpoints but the newest `keep` and the best, and what a killed writer left behind."""
    for path in checkpoints(folder)[:-keep]:
        if int(path.name[5:]) != best_step:
            shutil.rmtree(path)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def _flat_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    state = optimizer.state_dict()
    flat = {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
        if value is not None
    }
    return flat, state["param_groups"]


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def rng_state() -> dict[str, Tensor]:
    """The random state of this process: torch, CUDA, numpy and Python."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(keys.astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, gauss], dtype=torch.float64),
        "python": torch.tensor(internal, dtype=torch.int64),
        "python_rest": torch.tensor([version, float("nan") if gauss_next is None else gauss_next], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Puts back what `rng_state` read."""
    torch.set_rng_state(state["torch"])
    position, has_gauss, gauss = state["numpy_rest"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))  # noqa: NPY002
    version, gauss_next = state["python_rest"].tolist()
    random.setstate((int(version), tuple(state["python"].tolist()), None if gauss_next != gauss_next else gauss_next))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
