"""Mines shortlists on every rank of a world: `python -m tests.training.mining ROOT FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dexml.distributed import World, launch, leave
from dexml.labels.policy import Shortlist
from dexml.session import Session
from dexml.training import mining
from dexml.training.mining import Miner
from tests.training.runs import config
from tests.training.test_mining import HARD, found


def main() -> None:
    root, folder = map(Path, sys.argv[1:])
    world = World.of(launch())
    session = Session(config(root, **HARD), world)
    session.encoder.double()
    folder.mkdir(exist_ok=True)
    mining.BLOCK = 7
    side = Shortlist(2, 0, folder, world)
    Miner(session, side).mine(0)
    assert np.array_equal(side.lists, found(session))  # type: ignore[arg-type]
    leave()


if __name__ == "__main__":
    main()
