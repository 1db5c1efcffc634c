"""One float64 step and a search of every kind of head: `python -m tests.heads.mhe_step ROOT OUT` saves what they give.

The global batch is the same 11 points whatever the number of processes; 29 labels stand in groups that split unevenly.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import World, launch, leave
from dexml.heads.features import FeatureHead
from dexml.session import Session
from tests.helpers.models import toy_config
from tests.helpers.step import accumulated

BASE = {"net": "mhe", "doc_layers": 2, "doc_dropout": 0.2, "mhe_order": "random", "mhe_lengths": "5x6"}
CASCADE = {**BASE, "mhe_kind": "cascade", "mhe_open": 2, "mhe_dim": 7}
SAMPLING = {**BASE, "mhe_kind": "sampling", "mhe_loss": "bce", "mhe_sampled": 2, "mhe_dim": 7}
SHARED, OWN = {"mhe_table": "replicated"}, {"mhe_table": "sharded"}
TABLES = {
    "cascade": CASCADE,
    "cascade-replace": {**CASCADE, "mhe_overflow": "replace", "mhe_lengths": "15x2"},
    "cascade-drop": {**CASCADE, "mhe_overflow": "drop", "mhe_lengths": "15x2"},
    "cascade-exact": {**CASCADE, "mhe_exact": True, "mhe_lengths": "2x15"},
    "cascade-softmax": {**CASCADE, "mhe_loss": "softmax"},
    "cascade-text": {**CASCADE, "mhe_init": "label-text", "mhe_order": "cluster"},
    "sampling": SAMPLING,
    "sampling-softmax": {**SAMPLING, "mhe_loss": "softmax", "mhe_lengths": "2x15", "mhe_sampled": 1},
    "sampling-own": {**SAMPLING, "mhe_loss": "softmax", "mhe_scope": "own", "mhe_dim": 0},
    "sampling-batch": {**SAMPLING, "mhe_scope": "batch", "mhe_order": "frequency"},
    "sampling-batch-softmax": {**SAMPLING, "mhe_scope": "batch", "mhe_loss": "softmax"},
}
CASES = {
    "product": {**BASE, "mhe_kind": "product"},
    "product-softmax": {**BASE, "mhe_kind": "product", "mhe_loss": "softmax", "mhe_renormalise": True},
    "product-3": {**BASE, "mhe_kind": "product", "mhe_lengths": "4x3x3", "mhe_loss": "joint-softmax"},
    "product-ranks": {**BASE, "mhe_kind": "product", "mhe_rank": 3, "mhe_open": 2},
    "product-ranks-softmax": {**BASE, "mhe_kind": "product", "mhe_rank": 2, "mhe_open": 1, "mhe_loss": "softmax"},
    **{f"{name}/shared": {**keys, **SHARED} for name, keys in TABLES.items()},
    **{f"{name}/own": {**keys, **OWN} for name, keys in TABLES.items()},
}


def step(cfg: Config, world: World) -> dict[str, np.ndarray]:
    """Loss, gradients, and the best labels of the 50 test points before the step."""
    session = Session(cfg, world)
    session.encoder.double().train()
    head = session.head
    assert isinstance(head, FeatureHead)
    head.learn_from(session.training_split)
    head.fit_structure(session.embedder())
    predictions = session.evaluate("tst")["tst"][1]
    session.encoder.train()
    batch = Batch(np.arange(3, 14) * 11 % 200, epoch=1, step=7)
    losses = accumulated(head, world, batch)
    found = {"loss": np.array(losses), "ids": predictions.ids, "scores": predictions.scores}
    found |= {name: p.grad.numpy() for name, p in head.model.named_parameters() if p.grad is not None}
    for name, p in head.own.items():
        grad = torch.zeros_like(p) if p.grad is None else p.grad
        whole = world.gather_rows(grad, head.sizes[name]).flatten(0, 1)
        found[f"net.{name}"] = whole[: session.dataset.n_labels].numpy()  # as the replicated table names and cuts it
    return found


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    found: dict[str, np.ndarray] = {}
    for case, keys in CASES.items():
        cfg = Config(**toy_config(root, num_val_points=0, **keys))
        found |= {f"{case}:{name}": value for name, value in step(cfg, world).items()}
    if world.is_main:
        np.savez(out, **found)
    leave()


if __name__ == "__main__":
    main()
