"""One float64 training step on every rank of a world: `python -m tests.helpers.step ROOT OUT` saves the gradients.

The global batch is the same 11 points whatever the number of processes; 11 queries and 29 labels split unevenly.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import GradientReduction, World, launch, leave
from dexml.heads.base import Head
from dexml.labels.policy import Shortlist
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.step import Stepper
from tests.helpers.models import toy_config

HARD = {"net": "dist-de-hnm", "neg_type": "shorty", "num_neg_samples": 3, "num_pos_samples": 2, "loss_sample": True}
CASES = {
    "decoupled": {"loss_criterion": "decoupled-softmax"},
    "decoupled-sampled": {"loss_criterion": "decoupled-softmax", "loss_sample": True},
    "softmax-weighted": {"loss_criterion": "softmax", "loss_weighted": True},
    "bce-sampled": {"loss_criterion": "bce", "loss_sample": True},
    "topk": {"loss_criterion": "topk", "topk_K": 3, "loss_sample": True},
    "topk-num_pos": {"loss_criterion": "topk", "topk_K": "num_pos"},
    "topk-laplace": {"loss_criterion": "topk", "topk_K": 3, "loss_sample": True, "topk_cdf": "laplace"},
    "in-batch": {"net": "dist-de-hnm", "neg_type": "in-batch"},
    "in-batch-logq": {"net": "dist-de-hnm", "neg_type": "in-batch", "logq_correction": True},
    "shortlist": HARD,
    "classifier": {"net": "dist-clf-net"},
    "classifier-random-bce": {"net": "dist-clf-net", "clf_init": "random", "loss_criterion": "bce"},
    "classifier-bf16": {"net": "dist-clf-net", "clf_init": "random", "clf_dtype": "bf16"},
    "classifier-topk": {"net": "dist-clf-net", "loss_criterion": "topk", "topk_K": "num_pos"},
    "classifier-sampled": {"net": "dist-clf-net", "clf_init": "random", "loss_sample": True, "gc_bsz_x": 1},
    "joint": {"net": "dist-clf-net", "clf_joint": True, "loss_criterion": "bce"},
    "one-query-chunks": {"gc_bsz_x": 1, "gc_bsz": 1, "token_budget": 1, "bottleneck_dim": 8, "dropout": 0.2},
}


def gradients(root: Path, world: World) -> dict[str, np.ndarray]:
    """Loss and gradients of every case, by `case/parameter`."""
    found: dict[str, np.ndarray] = {}
    for case, keys in CASES.items():
        cfg = Config(**toy_config(root, **keys))
        session = Session(cfg, world)
        encoder = session.encoder.double().train()
        trn = session.dataset.trn
        head = session.head
        head.learn_from(trn)
        head.fit_structure(session.embedder())
        if isinstance(head.side, Shortlist):
            lists = np.random.default_rng(5).integers(0, trn.relevance.shape[1], (len(trn), 6))
            head.side.lists = lists.astype(np.int32)
        batch = Batch(np.arange(3, 14) * 11 % len(trn), epoch=1, step=7)
        losses = accumulated(head, world, batch)
        found[f"{case}/loss"] = np.array(losses)
        found |= {f"{case}/{n}": p.grad.numpy() for n, p in encoder.named_parameters() if p.grad is not None}
        if head.own:
            found |= {f"{case}/{name}": value for name, value in own(cfg, session, batch).items()}
    return found


def accumulated(head: Head, world: World, batch: Batch) -> list[float]:
    """Losses of two points, too few for three ranks, and of the batch, whose gradient is left."""
    reduction, losses = GradientReduction(world, head.shared), []
    for part in (batch.split(2)[0], batch):  # the first too small for three ranks
        for p in (*head.shared, *head.own.values()):
            p.grad = None
        stats = head.accumulate(head.prepare(part), reduction=reduction if world.size > 1 else None)
        reduction.finish()
        losses.append(stats.loss)
    return losses


def own(cfg: Config, session: Session, batch: Batch) -> dict[str, np.ndarray]:
    """Gradients of what each rank alone holds, and the same after a clipped update."""
    head, world, n = session.head, session.world, session.dataset.n_labels
    whole = {f"own {name}": p.grad for name, p in head.own.items()}
    stepper = Stepper(cfg.model_copy(update={"max_grad_norm": 0.5}), head, world, total=10)
    stepper.optimizer.zero_grad()
    norm = stepper.step([head.prepare(batch)], TrainState()).norm
    whole |= {f"updated {name}": p.detach() for name, p in head.own.items()}
    return {"norm": np.array(norm)} | {name: world.gather_rows(x, n).double().numpy() for name, x in whole.items()}


def evaluation(root: Path, world: World) -> dict[str, np.ndarray]:
    """Predictions and metrics of the untrained model on the 50 test points."""
    session = Session(Config(**toy_config(root)), world)
    metrics, predictions = session.evaluate("tst")["tst"]
    values = np.array([metrics[name] for name in sorted(metrics)])
    return {"ids": predictions.ids, "scores": predictions.scores, "metrics": values}


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    found = {**gradients(root, world), **evaluation(root, world)}
    if world.is_main:
        np.savez(out, **found)
    leave()


if __name__ == "__main__":
    main()
