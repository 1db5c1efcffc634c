"""Label weights after a warm-up, on every rank of a world: `python -m tests.training.warm ROOT OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from dexml.config import Config
from dexml.distributed import World, launch, leave
from dexml.session import Session
from dexml.training.warmup import warm_up
from tests.helpers.models import toy_config

KEYS = {"net": "dist-clf-net", "head_epochs": 2, "clf_lr": 0.03, "clf_init": "random"}


def warmed(root: Path, world: World) -> Session:
    """A session whose head has been warmed up, with one global batch size whatever the number of processes."""
    cfg = Config(**toy_config(root, bsz=30 // world.size, **KEYS))
    session = Session(cfg, world)
    session.encoder.double()
    session.head.learn_from(session.training_split)
    session.head.fit_structure(session.embedder())
    warm_up(cfg, session)
    return session


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    session = warmed(root, world)
    (rows_SD,) = session.head.own.values()
    whole = world.gather_rows(rows_SD.detach(), session.dataset.n_labels).numpy()
    if world.is_main:
        np.savez(out, rows=whole)
    leave()


if __name__ == "__main__":
    main()
