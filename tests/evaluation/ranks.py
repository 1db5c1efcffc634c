"""Evaluations on every rank of a world: `python -m tests.evaluation.ranks ROOT OUT` saves lists and metrics.

1, 7 and 13 test points, so that with 2 and 3 processes spans are uneven and empty; all ways of predicting.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from dexml.config import Config
from dexml.distributed import World, launch, leave
from dexml.index import LabelIndex
from dexml.session import Session
from dexml.training.modes import evaluate_modes
from tests.helpers.models import toy_config

POINTS = (1, 7, 13)
VOTES = {"predict_mode": "mix", "knn_k": 4, "knn_weight": 0.5}


def found(root: Path, world: World) -> dict[str, np.ndarray]:
    """`points/split/way/what` of every evaluation."""
    arrays: dict[str, np.ndarray] = {}
    for n in POINTS:
        keys = toy_config(root, dataset=f"Toy-{n}", num_val_points=2, num_threads=1, **VOTES)
        session = Session(Config(**keys), world)
        session.encoder.double()
        for split, ways in evaluate_modes(session, ["tst", "trn", "val"], "mix").items():
            for way, (metrics, lists) in ways.items():
                numbers = [value for name, value in sorted(metrics.items()) if "@" in name]
                for what, array in {"ids": lists.ids, "scores": lists.scores, "metrics": np.array(numbers)}.items():
                    arrays[f"{n}/{split}/{way}/{what}"] = array
        arrays[f"{n}/trn/truth"] = session.dataset.trn.relevance.toarray()
    points, labels = session.points("tst"), session.retrieve()
    for kind in ("flat", "hnsw"):
        other = labels.through(lambda label_LD, kind=kind: LabelIndex.build(label_LD, kind=kind))
        arrays[f"index/{kind}"] = other.search(points.tokens, points.rows, 5).ids
    arrays["index/exact"] = labels.search(points.tokens, points.rows, 5).ids
    return arrays


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    arrays = found(root, world)
    if world.is_main:
        np.savez(out, **arrays)
    leave()


if __name__ == "__main__":
    main()
