"""Label weights first, on vectors that the encoder gives as it starts: texts are encoded once, epochs take seconds.

What the encoder then learns is not spoilt by the large gradients of weights that know nothing yet (linear probing, then
fine-tuning: Kumar et al., ICLR 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dexml.config import Config
from dexml.data.batching import epoch_batches, steps_per_epoch
from dexml.distributed import GradientReduction
from dexml.heads.base import Prepared
from dexml.labels.gradcache import TextSide
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.progress import Bar
from dexml.training.step import Stepper

log = logging.getLogger(__name__)
FIRST_EPOCH = 1 << 20  # keeps its batches and dropouts apart from those of the training


class FixedVectors(TextSide):
    """Texts whose vectors [n, D] are known and stay."""

    def __init__(self, vectors_nD: Tensor) -> None:
        self.vectors_nD, self.encoded_tokens = vectors_nD, 0

    def embed(self) -> Tensor:
        return self.vectors_nD.clone()

    def backward(self, grad_nD: Tensor, reduction: GradientReduction | None = None) -> None: ...


def warm_up(cfg: Config, session: Session) -> None:
    """Trains what stands beside the encoder for `head_epochs` epochs, with a schedule of its own."""
    head, world, rows = session.head, session.world, session.train_rows
    with session.embedding("encoding the training points", len(rows)) as embedder:
        vectors_ND = torch.from_numpy(embedder.whole(session.tokens("trn"), rows))
    like = next(head.encoder.parameters())
    place = np.full(rows.max() + 1, -1)
    place[rows] = np.arange(len(rows))
    size = cfg.bsz * world.size
    total = cfg.head_epochs * steps_per_epoch(len(rows), size)
    state = TrainState()

    def fixed(ready: Prepared) -> Prepared:
        mine = ready.batch.points[world.span(len(ready.batch.points))]
        return replace(ready, queries=FixedVectors(vectors_ND[place[mine]].to(like)))

    head.encoder.train()
    with frozen(head.encoder), Bar("label weights", total, 0, world.is_main) as bar:
        stepper = Stepper(cfg, head, world, total)
        for epoch in range(FIRST_EPOCH, FIRST_EPOCH + cfg.head_epochs):
            for batch in epoch_batches(rows, size, cfg.seed, epoch):
                report = stepper.step([fixed(head.prepare(batch))], state)
                bar.tick(note=f"loss {report.loss:.4f}")
    log.info("label weights after %d epochs on fixed vectors: loss %.4f", cfg.head_epochs, report.loss)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, none of its parameters is trained."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
