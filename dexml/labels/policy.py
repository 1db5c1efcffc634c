"""Which labels a step encodes and compares with: the `label_side` of the config.

N training points, L labels, K length of a shortlist.
"""

from __future__ import annotations

import logging
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz

from dexml.config import Config
from dexml.data.batching import Batch, Ints, sample_kept
from dexml.data.dataset import Split
from dexml.data.files import DataError
from dexml.labels.positives import Cells, known_cells

log = logging.getLogger(__name__)
SHORTLIST_FILE = "trn_shorty.npz"
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
    """

    name = "shortlist"

    def __init__(self, n_negatives: int, seed: int) -> None:
        self.n_negatives, self.seed = n_negatives, seed
        self.lists: csr_matrix | None = None

    def pool(self, batch: Batch, cells: Cells) -> Ints:
        if self.lists is None or not self.n_negatives:
            return cells.kept_labels
        rows = self.lists[batch.points]
        drawn = sample_kept(rows, self.n_negatives, self.seed + NEGATIVE_DRAWS, batch)
        return np.union1d(cells.kept_labels, rows.indices[drawn].astype(np.int64))

    def set_lists(self, ids: Ints, n_labels: int) -> None:
        """Takes mined label ids [N, K], padded with -1."""
        rows, places = np.nonzero(ids >= 0)
        cells = (np.ones(len(rows), np.float32), (rows, ids[rows, places]))
        self._take(csr_matrix(cells, shape=(len(ids), n_labels)))

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
        self._take(negatives)

    def _take(self, lists: csr_matrix) -> None:
        self.lists = lists
        empty = np.diff(lists.indptr) == 0
        if empty.any():
            log.info("shortlist: %.1f %% of the points have none", 100 * empty.mean())

    def save(self, folder: Path) -> None:
        if self.lists is not None:
            save_npz(folder / SHORTLIST_FILE, self.lists)

    def load(self, folder: Path) -> None:
        path = folder / SHORTLIST_FILE
        self.lists = csr_matrix(load_npz(path)) if path.exists() else None


def make_label_side(cfg: Config, split: Split) -> LabelSide:
    """The policy of a config for training points."""
    match cfg.resolved_label_side:
        case "all":
            return AllLabels(split.relevance.shape[1])
        case "in-batch":
            return InBatch()
    side = Shortlist(cfg.num_neg_samples, cfg.seed)
    if cfg.trn_shorty:
        side.load_initial(cfg.trn_shorty, known_cells(split.relevance, split.filters))
    return side
