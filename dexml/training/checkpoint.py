"""Checkpoints: everything a resume needs, in safetensors and JSON, one directory `step-00000100/` each."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from dexml.config import Config
from dexml.training.directory import CheckpointError, remove_directory, verify, write_directory
from dexml.training.rng import set_rng_state

__all__ = ["CheckpointError", "TrainState", "checkpoint_path", "checkpoints", "newest"]

log = logging.getLogger(__name__)
NAME = re.compile(r"step-(\d{8,})")
WEIGHT = "weight."  # begins the names of parameters in a shard
Own = Mapping[str, torch.nn.Parameter]
NONE: Own = {}


@dataclass
class TrainState:
    """Counters and small state; tensors stand beside it in files of their own."""

    step: int = 0
    """Batches done; the sampler's position, since the order is a function of (seed, epoch)."""
    updates: int = 0
    """Optimiser updates done; the schedule's position."""
    best: dict[str, float] = field(default_factory=dict)
    """`value` of the tracked metric and the `step` it was reached at."""
    stale: int = 0
    """Evaluations since the best one."""
    stopped: bool = False
    """`early_stop` has ended the training."""
    cost: dict[str, float] = field(default_factory=dict)
    """What the steps since the last evaluation took."""
    loss_sum: float = 0.0
    """Sum and count of step losses since the last evaluation."""
    loss_count: int = 0
    zero_losses: int = 0
    """Steps in a row whose loss was exactly 0."""
    loss_scale: dict[str, float] = field(default_factory=dict)
    clip_norms: list[float] = field(default_factory=list)
    """Lengths of the last gradients, which adaptive clipping goes by."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What must be the same on resume: config, data, number of processes."""


# --- a folder of checkpoints ----------------------------------------------------------------------------------------


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted((p for p in folder.glob("step-*") if NAME.fullmatch(p.name)), key=_step)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, None if there are none; a damaged one is named in the log and passed over.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            log.warning("%s: trying the one before", error)
    if found:
        raise CheckpointError(f"{folder}: all {len(found)} checkpoints are damaged; start over with --resume never")
    return None


def prune(folder: Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints and the best one each of these names, and what a kill left."""
    found = checkpoints(folder)
    best = {_best_step(path) for path in found[-keep:]}
    for path in found[:-keep]:
        if _step(path) not in best:
            remove_directory(path)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def _best_step(path: Path) -> float | None:
    try:
        return read_state(path).best.get("step")
    except CheckpointError:  # damaged meanwhile: `newest` passes over it
        return None


def forget_after(folder: Path, step: int) -> None:
    """Deletes checkpoints of later steps: a run that resumed from an older one makes them again."""
    for path in checkpoints(folder):
        if _step(path) > step:
            remove_directory(path)


# --- one checkpoint -------------------------------------------------------------------------------------------------


def save_checkpoint(
    folder: Path,
    state: TrainState,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: list[dict[str, Tensor]],
    extra: Callable[[Path], None],
    own: Own = NONE,
) -> Path:
    """Writes `step-<step>`; `rng` holds `rng_state()` of every rank, `extra` writes what else the head remembers.

    Args:
        own: parameters of this rank alone, left out here: each rank's are written by `save_shard`.
    """

    def fill(path: Path) -> None:
        save_model(model, str(path / "model.safetensors"))
        state_of, groups = _flat_optimizer(optimizer), optimizer.state_dict()["param_groups"]
        save_file(_part(state_of, optimizer, own, inside=False), path / "optimizer.safetensors")
        by_rank = {f"{rank}.{name}": value for rank, one in enumerate(rng) for name, value in one.items()}
        save_file(by_rank, path / "rng.safetensors")
        content = {**asdict(state), "optimizer_groups": groups}
        (path / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        extra(path)

    path = checkpoint_path(folder, state.step)
    write_directory(path, fill)
    return path


def shard_path(folder: Path, rank: int) -> Path:
    """Where the shard of a rank lies in a checkpoint."""
    return folder / f"shard-{rank}.safetensors"


def save_shard(path: Path, own: Own, optimizer: torch.optim.Optimizer) -> None:
    """Writes the parameters that this rank alone holds, and what the optimiser remembers of them."""
    tensors = {f"{WEIGHT}{name}": p.detach() for name, p in own.items()}
    save_file(tensors | _part(_flat_optimizer(optimizer), optimizer, own, inside=True), path)


def load_weights(path: Path, model: torch.nn.Module, own: Own, rank: int) -> dict[str, Tensor]:
    """Puts the weights of a checkpoint back; the optimiser's part of this rank's shard."""
    load_model(model, path / "model.safetensors")
    shard = load_file(shard_path(path, rank)) if own else {}
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(shard.pop(f"{WEIGHT}{name}"))
    return shard


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int, own: Own = NONE
) -> TrainState:
    """Puts model, optimiser and this rank's parameters and random state back, and returns the counters."""
    state, groups = _read(path)
    shard = load_weights(path, model, own, rank)
    _load_optimizer(optimizer, load_file(path / "optimizer.safetensors") | shard, groups)
    rng = load_file(path / "rng.safetensors")
    set_rng_state({name.split(".", 1)[1]: value for name, value in rng.items() if name.startswith(f"{rank}.")})
    return state


def read_state(path: Path) -> TrainState:
    """The counters alone; CheckpointError if the folder is something else."""
    return _read(path)[0]


def _read(path: Path) -> tuple[TrainState, list[dict[str, Any]]]:
    try:
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        groups = content.pop("optimizer_groups")
        return TrainState(**content), groups
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is no checkpoint (state.json is missing): name a step-* folder") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}/state.json is not of this version: start over with --resume never") from error


def check_identity(path: Path, before: Mapping[str, Any], cfg: Config, now: Mapping[str, Any]) -> None:
    """Raises CheckpointError, naming what differs, unless the run that wrote the checkpoint is this one."""
    try:
        then = Config(**before["config"])  # keys that are newer than the checkpoint have their defaults
    except ValueError as error:
        raise CheckpointError(f"{path} was written by another version of dexml: {error}") from error
    keys = cfg.changed(then)
    if keys:
        old, new = then.to_dict(), cfg.to_dict()
        changes = ", ".join(f"{key}: {old[key]} -> {new[key]}" for key in keys)
        raise CheckpointError(f"{path} was written with other settings ({changes}); set them back, or --resume never")
    parts = [part for part, value in now["data"].items() if before["data"].get(part) != value]
    if parts:
        raise CheckpointError(
            f"{path}: the data have changed since ({', '.join(parts)}); start over with --resume never"
        )
    if before.get("precision") != now["precision"]:
        raise CheckpointError(
            f"{path} was written with precision {before.get('precision')}, here it is {now['precision']}: "
            f"set precision, or start over with --resume never"
        )
    if before["processes"] != now["processes"]:
        raise CheckpointError(
            f"{path} was written by {before['processes']} processes, now there are {now['processes']}: "
            f"start as many, or start over with --resume never"
        )


def _flat_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<place of the parameter>.<name>` of everything that the optimiser remembers."""
    return {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def _part(flat: dict[str, Tensor], optimizer: torch.optim.Optimizer, own: Own, *, inside: bool) -> dict[str, Tensor]:
    """What is remembered of the parameters of `own`, or of all others."""
    mine = {id(p) for p in own.values()}
    places = [id(p) in mine for group in optimizer.param_groups for p in group["params"]]
    return {key: value for key, value in flat.items() if places[int(key.split(".", 1)[0])] is inside}


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
