"""A float64 step and a search of label trees on every rank: `python -m tests.heads.plt_step ROOT OUT` saves them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import GradientReduction, World, launch, leave
from dexml.heads.plt import PLT
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.step import Stepper
from tests.helpers.models import toy_config

NET = {"net": "plt", "doc_layers": 2, "doc_dropout": 0.2, "plt_arity": 3, "plt_max_leaves": 4, "plt_beam": 2}
CASES: dict[str, dict[str, Any]] = {
    "per_doc": {},
    "per_term": {"plt_loss": "per_term", "plt_tree": "huffman"},
    "sharded": {"plt_table": "sharded", "plt_beam": 0},
    "sharded-per_term": {"plt_table": "sharded", "plt_loss": "per_term", "plt_tree": "random"},
    "lazy": {"optim": "lazyadam"},
    "chunks": {"gc_bsz_x": 1, "token_budget": 1},
}


def step(root: Path, world: World, case: str) -> dict[str, np.ndarray]:
    session = Session(Config(**toy_config(root, **(NET | CASES[case]))), world)
    session.encoder.double().train()
    head = session.head
    assert isinstance(head, PLT)
    head.learn_from(session.training_split)
    with torch.no_grad():  # weights that differ from node to node
        rows = torch.arange(head.tree.n_nodes * head.encoder.width, dtype=torch.float64).sin()
        head._table["weight"].copy_(0.1 * rows.view(head.tree.n_nodes, -1)[head.span])
    reduction = GradientReduction(world, head.shared)
    batch = Batch(np.arange(3, 14) * 11 % 200, epoch=1, step=7)
    stats = head.accumulate(head.prepare(batch), reduction=reduction if world.size > 1 else None)
    reduction.finish()
    found = {"loss": np.array(stats.loss)}
    found |= {name: p.grad.to_dense().numpy() for name, p in head.model.named_parameters() if p.grad is not None}
    found |= {f"own {name}": _whole(head, p.grad) for name, p in head.own.items()}
    stepper = Stepper(session.cfg.model_copy(update={"max_grad_norm": 0.5}), head, world, total=10)
    stepper.optimizer.zero_grad()
    found["norm"] = np.array(stepper.step([head.prepare(batch)], TrainState()).norm)
    small = stepper.step([head.prepare(batch.split(2)[0])], TrainState())  # too small for three ranks
    found["after the update"] = np.array([small.loss, small.norm])
    found |= {f"updated {name}": _whole(head, p) for name, p in head.own.items()}
    session.encoder.eval()
    predictions = head.retriever(session.embedder()).search(session.tokens("tst"), np.arange(50), 7)
    return found | {"ids": predictions.ids, "scores": predictions.scores}


def _whole(head: PLT, own: torch.Tensor | None) -> np.ndarray:
    assert own is not None
    return head.world.gather_rows(own.detach(), head.tree.n_nodes).numpy()


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    found = {f"{case}/{name}": value for case in CASES for name, value in step(root, world, case).items()}
    if world.is_main:
        np.savez(out, **found)  # type: ignore[arg-type]
    leave()


if __name__ == "__main__":
    main()
