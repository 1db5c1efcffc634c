"""The batches of a run: points one by one, or in groups that are near each other for the encoder at the start."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dexml.data.batching import Batch, Ints, epoch_batches
from dexml.data.clusterbatches import grouped_batches
from dexml.data.files import DataError, atomic_write
from dexml.heads.clustering import block_order
from dexml.session import Session

log = logging.getLogger(__name__)
FILE = "point_groups.npy"


class Batches:
    """Batches of `size` points of the training split of a session."""

    def __init__(self, session: Session, size: int) -> None:
        self.session, self.size, self.order = session, size, session.train_rows

    def group(self, folder: Path, resumed: bool) -> None:
        """With `batch_group`, finds which points are near each other and keeps it in the folder of the run.

        Raises:
            DataError: a resumed run has lost it.
        """
        if self.session.cfg.batch_group:
            path, world = folder / FILE, self.session.world
            order = self._order() if not resumed else None
            self.order = world.on_main(lambda: _kept(path, order))

    def _order(self) -> Ints:
        rows, session = self.session.train_rows, self.session
        vectors = session.embedder().whole(session.tokens("trn"), rows)
        log.info("grouping %d points by %d", len(rows), session.cfg.batch_group)
        return rows[block_order(vectors, session.cfg.batch_group, session.cfg.seed)]

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """Those of an epoch from number `start` on."""
        cfg = self.session.cfg
        if cfg.batch_group:
            return grouped_batches(self.order, cfg.batch_group, self.size, cfg.seed, epoch, start)
        return epoch_batches(self.order, self.size, cfg.seed, epoch, start)


def _kept(path: Path, order: Ints | None) -> Ints:
    """Writes the order, or reads what was written."""
    if order is not None:
        with atomic_write(path) as file:
            np.save(file, order)
        return order
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): start over with --resume never") from error
