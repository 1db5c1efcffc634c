"""Reads texts with the members of an ensemble, judges their uncertainty and writes it down.

```
summary.json     what is printed: precision, AUROC and average precision, means, bounds, and the members
<split>.npz      of every text, as CSR: indptr, ids, mean, total, data (knowledge is total - data); rows, bound
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
from dexml.evaluation.topk import Csr, Ids, blocks
from dexml.evaluation.uncertainty_tasks import kept, other_texts, precision, summary, wrong_labels
from dexml.evaluation.uncertainty_texts import Member, Mode, Readings, read
from dexml.hub.members import Loaded, load_member

BLOCK = 1024  # texts read at a time


@dataclass(frozen=True)
class Texts:
    """Some of the texts of a file."""

    rows: Ids
    """[N] which they are, counted from 0"""
    texts: list[str]

    @classmethod
    def of(cls, every: Sequence[str], most: int) -> Texts:
        """All of them with 0, else so many, evenly taken."""
        n = len(every)
        rows = np.arange(n) if not most or n <= most else np.linspace(0, n - 1, most).astype(np.int64)
        return cls(rows, [every[int(row)] for row in rows])


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

    def points(self) -> tuple[Texts, Csr]:
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
        texts = Texts.of(split.texts, self.most)
        return texts, split.relevance[texts.rows]

    def others(self) -> Texts | None:
        """The texts of another kind, if they are asked for."""
        if self.ood is None:
            return None
        return Texts.of(Lines(self.ood / "raw" / "tst_X.txt" if self.ood.is_dir() else self.ood), self.most)


def measure(asked: Question) -> dict[str, Any] | None:
    """The content of summary.json; None on other ranks than the first, which read their part of the texts.

    Raises:
        ConfigError, DataError: members of different labels, or without probabilities; texts that are not there.
    """
    folder, (points, truth), others = asked.folder, asked.points(), asked.others()
    world = World.of(launch())
    loaded = _members(asked.members, str(world.device))
    members, n_labels = [one.member for one in loaded], len(loaded[0].labels)
    if truth.shape[1] != n_labels:
        raise ConfigError(f"the data have {truth.shape[1]} labels, the members {n_labels}: give the data they are for")
    inside = _read(world, members, points, n_labels, asked)
    outside = _read(world, members, others, n_labels, asked) if others else None
    if inside is None:
        return None
    found: dict[str, Any] = {
        "members": [one.facts for one in loaded],
        **{
            "split": asked.split,
            "points": len(points.rows),
            "labels": n_labels,
            "top_k": asked.top_k,
            "mode": asked.mode,
        },
        "precision": precision(inside, truth),
        "wrong labels": wrong_labels(inside, truth),
        "kept": kept(inside, truth),
        "means": summary(inside),
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{asked.split}.npz", inside, points)
    if others and outside:
        found |= {"ood": str(asked.ood), "others": len(others.rows), "other texts": other_texts(inside, outside)}
        found["means of others"] = summary(outside)
        _write(folder / "ood.npz", outside, others)
    found["out"] = str(folder)
    with atomic_write(folder / "summary.json") as file:
        file.write(json.dumps(found, indent=1).encode() + b"\n")
    return found


def _members(paths: Sequence[Path], device: str) -> list[Loaded]:
    loaded = [load_member(path, device) for path in paths]
    first = list(loaded[0].labels)
    for path, one in zip(paths, loaded, strict=True):
        if list(one.labels) != first:
            raise ConfigError(f"{path} has other labels than {paths[0]}: members must be trained on the same ones")
    return loaded


def _read(world: World, members: Sequence[Member], texts: Texts, n_labels: int, asked: Question) -> Readings | None:
    """Each rank reads its span of the texts, rank 0 gets all."""
    mine = texts.texts[world.span(len(texts.texts))]
    k = min(asked.top_k, n_labels)
    parts = [read(members, mine[rows], k, n_labels, asked.mode) for rows in blocks(len(mine), BLOCK)]
    every = [part for some in world.gather_objects(parts) for part in some]
    return Readings.joined(every) if world.is_main else None


def _write(path: Path, readings: Readings, texts: Texts) -> None:
    real, u = readings.ids >= 0, readings.of_labels
    numbers = {"mean": u.mean[real], "total": u.total[real], "data": u.data[real], "bound": readings.bound}
    arrays: dict[str, Any] = {name: array.astype(np.float32) for name, array in numbers.items()}
    arrays |= {"indptr": np.append(0, np.cumsum(real.sum(axis=1))), "ids": readings.ids[real].astype(np.int32)}
    with atomic_write(path) as file:
        np.savez_compressed(file, rows=texts.rows, **arrays)
