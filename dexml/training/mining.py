"""Shortlists mined from the model as it is: for every training point the labels nearest to it, without its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryFile

import numpy as np

from dexml.evaluation.retrieval import BLOCK, Embeddings, Wanted
from dexml.evaluation.topk import blocks
from dexml.labels.listfile import LISTS, NEXT, write_lists
from dexml.labels.policy import Shortlist
from dexml.labels.positives import known_cells
from dexml.session import Session

log = logging.getLogger(__name__)
Vectors = Callable[[slice], Embeddings]
"""the embeddings of a block of the training points"""


class Miner:
    """Mines the shortlists of a run, searched and written block by block, at once or in the background.

    What is searched in the background, all but the first lists, is embedded before it and comes to use an epoch later.
    """

    def __init__(self, session: Session, side: Shortlist) -> None:
        self.session, self.cfg, self.side = session, session.cfg, side
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="shortlists")

    def mine(self, epoch: int) -> None:
        """At the end of an epoch: takes the lists mined in the background, makes those that are wanted at once."""
        self.side.use_coming()
        if self._due(epoch, self.cfg.num_epochs) and not self._waits(epoch):
            self._write(LISTS, self._wanted(), self._vectors())
            self.side.use_mined()
            log.info("mined a shortlist of %d labels a point after epoch %d", self.cfg.hard_neg_topk, epoch)

    def begin(self, epoch: int) -> None:
        """Before the next epoch, a checkpoint being written: begins to mine in the background.

        A resumed run that was between two epochs does so, too: checkpoints hold the lists of later ones only.
        """
        if self._due(epoch, self.cfg.num_epochs - 1) and self._waits(epoch):
            wanted, vectors = self._wanted(), self._kept(self._vectors())
            self.side.coming = self.thread.submit(self._write, NEXT, wanted, vectors).result
            log.info("mining a shortlist in the background after epoch %d, to be used from %d on", epoch, epoch + 1)

    def _due(self, epoch: int, end: int) -> bool:
        """After `hard_neg_start` epochs, then at evaluations, before the epoch `end`."""
        due = epoch % self.cfg.eval_interval == 0 or epoch == self.cfg.hard_neg_start
        return due and self.cfg.hard_neg_start <= epoch < end

    def _waits(self, epoch: int) -> bool:
        """Whether there are lists to go on with while others are mined."""
        return self.cfg.hard_neg_background and (epoch > self.cfg.hard_neg_start or bool(self.cfg.trn_shorty))

    def _wanted(self) -> Wanted:
        """What is asked of the labels as they are embedded now."""
        trn, k = self.session.dataset.trn, min(self.cfg.hard_neg_topk, self.session.dataset.n_labels)
        return Wanted(self.session.retrieve(), k, known_cells(trn.relevance, trn.filters))

    def _vectors(self) -> Vectors:
        tokens, embedder = self.session.tokens("trn"), self.session.embedder()
        return lambda rows: embedder.whole(tokens, np.arange(rows.start, rows.stop))

    def _kept(self, vectors: Vectors) -> Vectors:
        """The same of the encoder as it is now, in a file without a name."""
        n = len(self.session.dataset.trn)
        with TemporaryFile(dir=self.side.folder) as file:
            kept_ND = np.memmap(file, np.float32, "w+", shape=(n, self.session.encoder.width))
        for rows in blocks(n, BLOCK):
            kept_ND[rows] = vectors(rows)
        return lambda rows: kept_ND[rows]

    def _write(self, name: str, wanted: Wanted, vectors: Vectors) -> None:
        n = len(self.session.dataset.trn)
        parts = (wanted.part(vectors(rows), rows).ids for rows in blocks(n, BLOCK))
        write_lists(self.session.world, self.side.folder / name, (n, wanted.k), parts)
