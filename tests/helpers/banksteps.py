"""Float64 steps with a label bank on every rank: `python -m tests.helpers.banksteps ROOT OUT` saves what each gave.

Three batches of 11, 11 and 7 points of 29 labels, a plain gradient step after each, dropout on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import GradientReduction, World, launch, leave
from dexml.heads.bank import BankEncoder
from dexml.heads.base import Head
from dexml.session import Session
from tests.helpers.models import toy_config

BANK = {"label_side": "bank", "bank_budget": 0.75, "bsz": 4}
CASES: dict[str, dict[str, Any]] = {
    "weighted": {"bank_grad": "weighted"},
    "delayed": {"bank_grad": "delayed", "bank_correction": "linear"},
    "drop": {"bank_grad": "drop", "bank_correction": "none", "bank_mined": 1.0},
    "round": {"bank_grad": "delayed", "bank_mined": 0.0, "loss_criterion": "softmax", "gc_bsz": 1},
    "bf16": {"bank_dtype": "bf16"},
    "full": {"bank_budget": 1.0},
    "topk": {"loss_criterion": "topk", "topk_K": 3, "loss_sample": True},
}
SIZES = (11, 11, 7)


def make_head(root: Path, world: World, **keys: Any) -> Head:
    session = Session(Config(**toy_config(root, **keys)), world)
    session.encoder.double().train()
    session.head.learn_from(session.dataset.trn)
    session.head.fit_structure(session.embedder())
    return session.head


def steps(head: Head, world: World, lr: float = 0.02) -> list[dict[str, np.ndarray]]:
    """Loss, gradients and, of a bank, all rows and ages after each step."""
    found = []
    for number, size in enumerate(SIZES):
        batch = Batch((np.arange(size) * 11 + 3 * number) % 150, epoch=0, step=number)
        reduction = GradientReduction(world, head.shared)
        stats = head.accumulate(head.prepare(batch), reduction=reduction if world.size > 1 else None)
        reduction.finish()
        step = {"loss": np.array(stats.loss)} | {f"fact {name}": np.array(x) for name, x in stats.facts.items()}
        for name, p in head.model.named_parameters():
            if p.grad is not None:
                step[name] = p.grad.numpy().copy()
                p.data.sub_(lr * p.grad)
                p.grad = None
        if isinstance(head, BankEncoder):
            bank = head.bank
            for name, rows in {"rows": bank.vectors_SD.double(), "ages": bank.age_S.double()}.items():
                step[name] = world.gather_rows(rows, bank.n_labels).numpy().copy()
        found.append(step)
    return found


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    found: dict[str, np.ndarray] = {}
    for case, keys in CASES.items():
        for number, step in enumerate(steps(make_head(root, world, **BANK | keys), world)):
            found |= {f"{case}/{number}/{name}": value for name, value in step.items()}
    if world.is_main:
        np.savez(out, **found)
    leave()


if __name__ == "__main__":
    main()
