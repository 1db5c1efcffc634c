"""Which labels a step encodes and compares with: the `label_side` of the config.

N training points, G of the global batch, L labels, K length of a shortlist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, load_npz, save_npz

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch, Ints, sample_kept
from dexml.data.dataset import Split
from dexml.data.files import DataError, link
from dexml.distributed import World
from dexml.labels.listfile import LISTS, NEXT, map_lists
from dexml.labels.positives import Cells, known_cells

log = logging.getLogger(__name__)
GIVEN = "trn_shorty.npz"
NEGATIVE_DRAWS = 0x5EED  # keeps draws from the shortlist apart from draws of positives


class LabelSide:
    """A policy answers which labels a step compares with; what it remembers goes into the checkpoint."""

    name: str

    def pool(self, batch: Batch, cells: Cells) -> Ints:
        """The labels of this step, ascending; the same on every rank, every kept positive among them."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Writes what every rank remembers, by rank 0 alone."""

    def save_shard(self, folder: Path) -> None:
        """Writes what this rank alone remembers; every rank calls it."""

    def load(self, folder: Path) -> None:
        """Reads what `save` and `save_shard` wrote."""


class AllLabels(LabelSide):
    """Every label, every step: the exact loss (DEXML's dist-de-all)."""

    name = "all"

    def __init__(self, n_labels: int) -> None:
        self._all = np.arange(n_labels)

    def pool(self, batch: Batch, cells: Cells) -> Ints:
        return self._all


class InBatch(LabelSide):
    """The kept positives of the global batch: cheap, its negatives are a small biased sample."""

    name = "in-batch"

    def pool(self, batch: Batch, cells: Cells) -> Ints:
        return cells.kept_labels


class Shortlist(LabelSide):
    """The kept positives and, per query, `n_negatives` labels drawn from its mined shortlist (DEXML's dist-de-hnm).

    Until a shortlist is mined or given, the same as `InBatch`.

    Args:
        folder: of the run, which holds the mined lists in use.
    """

    name = "shortlist"

    def __init__(self, n_negatives: int, seed: int, folder: Path, world: World) -> None:
        self.n_negatives, self.seed, self.folder, self.world = n_negatives, seed, folder, world
        self.lists: csr_matrix | NDArray[np.int32] | None = None
        """given ones [N, L], or mined ones [N, K] as `write_lists` leaves them"""
        self.coming: Callable[[], None] | None = None
        """waits for lists that are being mined, and raises what that has raised"""

    def pool(self, batch: Batch, cells: Cells) -> Ints:
        if self.lists is None or not self.n_negatives:
            return cells.kept_labels
        rows = self._cells(batch.points)
        drawn = sample_kept(rows, self.n_negatives, self.seed + NEGATIVE_DRAWS, batch)
        return np.union1d(cells.kept_labels, rows.indices[drawn].astype(np.int64))

    def _cells(self, points: Ints) -> csr_matrix:
        """The lists of G points, each label of a mined one as likely as the others."""
        assert self.lists is not None
        found = self.lists[points]
        if isinstance(found, csr_matrix):
            return found
        rows, places = np.nonzero(found >= 0)
        labels = found[rows, places]
        shape = len(points), int(labels.max(initial=0)) + 1
        return csr_matrix((np.ones(len(rows), np.float32), (rows, labels)), shape=shape)

    def use_mined(self) -> None:
        """Draws from the lists in the folder of the run from now on."""
        self.lists = map_lists(self.folder / LISTS)

    def use_coming(self) -> None:
        """Draws from the lists that are being mined, if any are, from now on."""
        if self.coming is not None:
            self.coming()
            (self.folder / NEXT).replace(self.folder / LISTS)
            self.coming = None
            self.use_mined()

    def load_initial(self, path: str, known: csr_matrix) -> None:
        """Takes the lists of an npz file (points x labels), the key `trn_shorty`, without the cells of `known`."""
        try:
            lists = csr_matrix(load_npz(path))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"trn_shorty: {path} is no sparse matrix that can be read ({error})") from error
        if lists.shape != known.shape:
            raise DataError(f"trn_shorty: {path} is {lists.shape}, this data set needs {known.shape} (points, labels)")
        lists = lists.astype(bool)
        negatives = (lists > known).astype(np.float32).tocsr()
        if not negatives.nnz:
            raise DataError(f"trn_shorty: {path} names no label that is not a point's own: it holds no negatives")
        if negatives.nnz < lists.nnz:
            log.info("trn_shorty: %d cells of points' own or filtered labels left out", lists.nnz - negatives.nnz)
        self.lists = negatives
        empty = np.diff(negatives.indptr) == 0
        if empty.any():
            log.info("shortlist: %.1f %% of the points have none", 100 * empty.mean())

    def save(self, folder: Path) -> None:
        if isinstance(self.lists, csr_matrix):
            save_npz(folder / GIVEN, self.lists)
        elif self.lists is not None:
            link(self.folder / LISTS, folder / LISTS)
        if self.coming is not None:
            self.coming()
            link(self.folder / NEXT, folder / NEXT)

    def load(self, folder: Path) -> None:
        given = folder / GIVEN
        self.lists = csr_matrix(load_npz(given)) if given.exists() else None
        mined, coming = ((folder / name).exists() for name in (LISTS, NEXT))
        if mined:
            self.world.on_main(lambda: link(folder / LISTS, self.folder / LISTS))
            self.use_mined()
        if coming:
            link(folder / NEXT, self.folder / NEXT)
            self.coming = lambda: None


def make_label_side(cfg: Config, split: Split, world: World) -> LabelSide:
    """The policy of a config for training points."""
    match cfg.resolved_label_side:
        case "all":
            return AllLabels(split.relevance.shape[1])
        case "in-batch":
            return InBatch()
    if cfg.hard_neg_background and world.size > 1:
        raise ConfigError(f"hard_neg_background is for one process, there are {world.size}: remove it")
    side = Shortlist(cfg.num_neg_samples, cfg.seed, cfg.out_dir, world)
    if cfg.trn_shorty:
        side.load_initial(cfg.trn_shorty, known_cells(split.relevance, split.filters))
    return side
