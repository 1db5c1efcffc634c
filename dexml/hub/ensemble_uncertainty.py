"""Reads texts with the members of an ensemble, judges their uncertainty and writes it down.

```
summary.json     what is printed: precision, AUROC and average precision, means, bounds, and the members
<split>.npz      of every text, as CSR: indptr, ids, mean, total, data (knowledge is total - data); bound
ood.npz          the same of the other texts
```

N texts, k labels of a member's list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexml.config import ConfigError, load_config
from dexml.data.dataset import Dataset
from dexml.data.files import atomic_write
from dexml.data.textfile import Lines
from dexml.distributed import World, launch
from dexml.evaluation.topk import Csr, blocks
from dexml.evaluation.uncertainty_tasks import kept, other_texts, precision, summary, wrong_labels
from dexml.evaluation.uncertainty_texts import Member, Mode, Readings, read
from dexml.hub.members import load_member

BLOCK = 1024  # texts read at a time


@dataclass(frozen=True)
class Question:
    """What `dexml uncertainty` was asked, see its --help."""

    members: Sequence[Path]
    data: Path | None = None
    split: str = "tst"
    ood: Path | None = None
    top_k: int = 100
    mode: Mode = "complete"
    most: int = 0
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the answer goes."""
        if self.out is None and not (self.members[0] / "best").is_dir():
            raise ConfigError(f"{self.members[0]} is not a run's folder: say with --out where the results go")
        return self.out or self.members[0] / "uncertainty"

    def points(self) -> tuple[Sequence[str], Csr]:
        """The texts and their truth."""
        folder = self.data
        if folder is None:
            settings = self.members[0] / "config.yaml"
            if not settings.is_file():
                raise ConfigError(f"{self.members[0]} is no run: say with --data where the data are")
            folder = load_config([settings]).data_dir
        needed = ("tst",) if self.split == "dev" else (self.split,)
        split = getattr(Dataset.load(folder, needed), self.split)
        if split is None:
            raise ConfigError(f"{folder} has no {self.split} split")
        return _thinned(split.texts, self.most), split.relevance[_rows(len(split.texts), self.most)]

    def others(self) -> Sequence[str]:
        """The texts of another kind, none if there are none asked for."""
        if self.ood is None:
            return []
        file = self.ood / "raw" / "tst_X.txt" if self.ood.is_dir() else self.ood
        return _thinned(Lines(file), self.most)


def measure(asked: Question) -> dict[str, Any] | None:
    """The content of summary.json; None on other ranks than the first, which read their part of the texts.

    Raises:
        ConfigError, DataError: members of different labels, or without probabilities; texts that are not there.
    """
    folder, (texts, truth), others = asked.folder, asked.points(), asked.others()
    world = World.of(launch())
    members, n_labels = _members(asked.members, str(world.device))
    if truth.shape[1] != n_labels:
        raise ConfigError(f"the data have {truth.shape[1]} labels, the members {n_labels}: give the data they are for")
    inside = _read(world, members, texts, n_labels, asked)
    outside = _read(world, members, others, n_labels, asked) if len(others) else None
    if inside is None:
        return None
    found: dict[str, Any] = {
        "members": [str(path) for path in asked.members],
        **{"split": asked.split, "points": len(texts), "labels": n_labels, "top_k": asked.top_k, "mode": asked.mode},
        "precision": precision(inside, truth),
        "wrong labels": wrong_labels(inside, truth),
        "kept": kept(inside, truth),
        "means": summary(inside),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{asked.split}.npz", inside)
    if outside is not None:
        found |= {"ood": str(asked.ood), "others": len(others), "other texts": other_texts(inside, outside)}
        found["means of others"] = summary(outside)
        _write(folder / "ood.npz", outside)
    found["out"] = str(folder)
    with atomic_write(folder / "summary.json") as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")
    return found


def _members(paths: Sequence[Path], device: str) -> tuple[list[Member], int]:
    loaded = [load_member(path, device) for path in paths]
    first = list(loaded[0][1])
    for path, (_, labels) in zip(paths, loaded, strict=True):
        if list(labels) != first:
            raise ConfigError(f"{path} has other labels than {paths[0]}: members must be trained on the same ones")
    return [member for member, _ in loaded], len(first)


def _read(
    world: World, members: Sequence[Member], texts: Sequence[str], n_labels: int, asked: Question
) -> Readings | None:
    """Each rank reads its span of the texts, rank 0 gets all."""
    mine = list(texts)[world.span(len(texts))]
    k = min(asked.top_k, n_labels)
    parts = [read(members, mine[rows], k, n_labels, asked.mode) for rows in blocks(len(mine), BLOCK)]
    every = [part for some in world.gather_objects(parts) for part in some]
    return Readings.joined(every) if world.is_main else None


def _write(path: Path, readings: Readings) -> None:
    real = readings.ids >= 0
    u = readings.of_labels
    arrays: dict[str, Any] = {"mean": u.mean[real], "total": u.total[real], "data": u.data[real]}
    arrays = {name: array.astype(np.float32) for name, array in (arrays | {"bound": readings.bound}).items()}
    indptr = np.append(0, np.cumsum(real.sum(axis=1)))
    with atomic_write(path) as file:
        np.savez_compressed(file, indptr=indptr, ids=readings.ids[real].astype(np.int32), **arrays)


def _thinned(texts: Sequence[str], most: int) -> list[str]:
    return [texts[int(row)] for row in _rows(len(texts), most)]


def _rows(n: int, most: int) -> Any:
    return np.arange(n) if not most or n <= most else np.linspace(0, n - 1, most).astype(np.int64)
