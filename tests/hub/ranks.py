"""Label vectors of a bundle written on every rank of a world: `python -m tests.hub.ranks ROOT OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dexml import distributed
from dexml.config import Config
from dexml.distributed import World, launch, leave
from dexml.session import Session
from tests.helpers.models import toy_config

CASES = {
    "dual": {},
    "classifier": {"net": "dist-clf-net", "clf_init": "random"},
    "joint": {"net": "dist-clf-net", "clf_joint": True},
}


def write(root: Path, out: Path, world: World) -> None:
    """A folder of `out` for each case, and on standard output what a disk that fills up ends with."""
    for case, keys in CASES.items():
        session = Session(Config(**toy_config(root, results_root=str(out), expname=case, num_threads=1, **keys)), world)
        session.encoder.double()
        session.head.learn_from(session.training_split)
        session.head.fit_structure(session.embedder())
        folder = session.cfg.out_dir
        if world.is_main:
            folder.mkdir(parents=True)
            lines = "".join(f"{text}\n" for text in session.dataset.label_texts)
            (folder / "labels.txt").write_text(lines, encoding="utf-8")
        write_head = session.head.bundle(session.embedder())
        world.on_main(lambda folder=folder, write_head=write_head: write_head(folder, {}))  # type: ignore[misc]


def full(rows: torch.Tensor) -> None:
    if rows[-1] >= 7:
        raise OSError("no space left")


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    distributed.ROWS_AT_ONCE = 3
    world = World.of(launch())
    write(root, out, world)
    span = world.span(10)
    try:
        world.rows_to_main(torch.arange(span.start, span.stop), 10, full)
    except OSError as error:
        print("told:", error)
    leave()


if __name__ == "__main__":
    main()
