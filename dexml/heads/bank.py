"""The dual encoder beside a bank of all label embeddings: every step compares with all labels and encodes few.

B queries of this rank, S labels of this rank's span, F fresh labels of all ranks, D embedding width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from dexml.config import ConfigError
from dexml.data.batching import Batch
from dexml.data.dataset import Split
from dexml.distributed import GradientReduction
from dexml.evaluation.retrieval import Embedder, Retriever
from dexml.heads.base import OFF, PreparedPool, StepStats
from dexml.heads.batchloss import LABELS, QUERIES
from dexml.heads.dual import DualEncoder
from dexml.labels.bank import Bank
from dexml.labels.correction import LogQ
from dexml.labels.policy import LabelSide
from dexml.stopwatch import Stopwatch

log = logging.getLogger(__name__)
AMPLE = 2
"""Times the labels of a batch: with less every set that was measured lost more than 0.3 P@5 (docs/label-side.md)."""


@dataclass(frozen=True)
class PreparedQueries(PreparedPool):
    room: float
    """tokens of labels whose activations may be kept"""


class BankEncoder(DualEncoder):
    """Encodes the labels that the bank chooses, spread evenly over the ranks whoever holds their rows."""

    bank: Bank
    """its `side`, once it learns"""

    def _label_side(self, split: Split) -> LabelSide:
        bank = Bank(self.cfg, self.encoder, split.relevance.shape[1], self.world)
        self._check_budget(bank, split)
        self.bank = bank
        return bank

    def _check_budget(self, bank: Bank, split: Split) -> None:
        batch = self.cfg.bsz * self.world.size
        expected = LogQ(split.relevance, self.cfg.loss_sample).expected(batch)
        told = (
            f"bank_budget {self.cfg.bank_budget} is {bank.budget} labels a step, but {batch} points have about "
            f"{expected:.0f} labels of their own"
        )

        def at_least(labels: float) -> str:
            return f"{min(1, np.ceil(100 * labels / bank.n_labels) / 100):g}"

        if expected > bank.budget:
            raise ConfigError(f"{told}: set it to {at_least(1.05 * expected)} at least, or lower bsz")
        if bank.budget < min(AMPLE * expected, bank.n_labels):
            few = "too few are left to stand for all others"
            log.warning("%s: %s; set it to %s or more, or lower bsz", told, few, at_least(AMPLE * expected))

    def fit_structure(self, embedder: Embedder) -> None:
        self.bank.fill(embedder.part(self.label_tokens, np.arange(len(self.label_tokens))))

    def prepare(self, batch: Batch) -> PreparedQueries:  # type: ignore[override]
        cells = self.loss.cells(batch)
        points = batch.points[self.world.span(len(batch.points))]
        queries = self.texts.of(batch, QUERIES, self.query_tokens, points)
        room = self.texts.keep_what_fits(queries)
        return PreparedQueries(batch, queries, cells, self.bank.pool(batch, cells), room)

    def accumulate(  # type: ignore[override]
        self,
        ready: PreparedQueries,
        scale: float = 1.0,
        watch: Stopwatch = OFF,
        reduction: GradientReduction | None = None,
    ) -> StepStats:
        bank, queries = self.bank, ready.queries
        with watch.phase("encode queries"):
            query_BD = queries.embed()
        with watch.phase("choose labels"):
            fresh = bank.choose(ready.cells.kept_labels, lambda: self.loss.mass(query_BD, bank.vectors_SD, ready))
        with watch.phase("encode labels"):
            mine = fresh.ids[self.world.span(len(fresh.ids))]
            labels = self.texts.of(ready.batch, LABELS, self.label_tokens, mine)
            labels.keep(ready.room)
            fresh_FD = self.world.gather_rows(labels.embed(), len(fresh.ids))
        with watch.phase("move labels"):
            bank.renew(fresh.ids, fresh_FD)
        with watch.phase("loss"):
            result, grad_query = self.loss.of(query_BD, bank.vectors_SD, ready)
            grad_label = self.world.scatter_rows_sum(bank.due(fresh, result.grad_label))
        with watch.phase("backward queries"):
            queries.backward(grad_query * scale)
        with watch.phase("backward labels"):
            labels.backward(grad_label * scale, reduction)
        tokens = queries.encoded_tokens + labels.encoded_tokens
        return StepStats(float(result.mean), len(mine), tokens, bank.facts)

    def retriever(self, embedder: Embedder) -> Retriever:
        """Embeds all labels, of which the bank of a run in training profits unless averaged weights did it."""
        found = super().retriever(embedder)
        if hasattr(self, "bank") and not self.cfg.swa_every:
            self.bank.fill(found.item_SD)
        return found
