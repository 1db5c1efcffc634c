"""One float64 step of the heads on token states, on every rank: `python -m tests.heads.attention_step ROOT OUT`.

ROOT holds a finished run of a two-level tree, whose last level is stepped again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import World, launch, leave
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.step import Stepper
from tests.helpers.models import toy_config

WORDS = {"word_vectors": "random", "word_dim": 8, "lstm_width": 8, "linear_size": "8", "lstm_start": True}
TREE = {"net": "attentionxml", "cluster_size": 4, "beam_width": 3, "expname": "tree", **WORDS}
PLT = {"net": "plt", "plt_scorer": "labelwise", "plt_arity": 3, "plt_max_leaves": 4, "plt_beam": 2, **WORDS}
CASES: dict[str, dict[str, Any]] = {
    "flat": {"net": "bilstm", **WORDS},
    "flat-texts": {"net": "bilstm", "query_init": "texts", **WORDS},
    "flat-lwan": {"net": "bilstm", "attention_output": "lwan", **WORDS},
    "flat-transformer": {"net": "bilstm", "text_encoder": "transformer", "linear_size": "8"},
    "flat-lazy": {"net": "bilstm", "optim": "lazyadam", "clip": "adaptive", **WORDS},
    "plt": {**PLT, "query_init": "texts"},
    "plt-exact": {**PLT, "plt_loss": "per_term", "plt_beam": 0},
    "plt-lazy": {**PLT, "optim": "lazyadam", "clip": "adaptive"},
    "tree": TREE,
    "tree-texts": {**TREE, "query_init": "texts"},
    "tree-lazy": {**TREE, "optim": "lazyadam", "clip": "value"},
    "tree-random": {**TREE, "pad_candidates": "random"},
}


def run_config() -> dict[str, Any]:
    """Of the run that ROOT must hold."""
    return {**TREE, "num_epochs": 1, "eval_interval": 1}


def step(root: Path, world: World, case: str) -> dict[str, np.ndarray]:
    """Losses of a batch and of one that is too small for three ranks, weights after them, and what is found then."""
    cfg = Config(**toy_config(root, **CASES[case], max_grad_norm=0.5))
    session = Session(cfg, world)
    session.encoder.double().train()
    head = session.head
    head.learn_from(session.training_split)
    head.fit_structure(session.embedder())
    stepper = Stepper(cfg, head, world, total=10)
    points, state = np.arange(3, 14) * 11 % len(session.dataset.trn), TrainState()
    batches = [Batch(part, epoch=1, step=7 + i) for i, part in enumerate((points, points[:2]))]
    reports = [stepper.step([head.prepare(batch)], state) for batch in batches]
    found = {f"{case}/loss": np.array([one.loss for one in reports]), f"{case}/norm": np.array(reports[-1].norm)}
    found |= {f"{case}/{name}": p.detach().numpy() for name, p in head.model.named_parameters()}
    _, lists = session.evaluate("tst")["tst"]
    return found | {f"{case}/ids": lists.ids, f"{case}/scores": lists.scores}


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    found: dict[str, np.ndarray] = {}
    for case in CASES:
        found |= step(root, world, case)
    if world.is_main:
        np.savez(out, **found)  # type: ignore[arg-type]
    leave()


if __name__ == "__main__":
    main()
