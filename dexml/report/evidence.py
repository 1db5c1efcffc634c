"""The predictions of runs held against the data they were made for.

Legend: N test points, K places stored, L labels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.dataset import DataError, Dataset
from dexml.evaluation.intervals import PointSums, point_sums
from dexml.evaluation.metrics import metric_columns
from dexml.evaluation.propensity import inverse_propensity, propensity_constants
from dexml.evaluation.topk import Csr, Ids, Mask, Scores, blocks, canonical, contains
from dexml.index.search import rank_topk
from dexml.report.run import Run

SCORES = "tst_score_mat.npz"
KS = (1, 3, 5)
_BLOCK = 8192  # points at a time


@dataclass(frozen=True)
class Ranked:
    """A run's lists, best first: ids [N, K] (-1 pads), scores [N, K] and whether each label is true [N, K]."""

    ids: Ids
    scores: Scores
    hits: Mask


@dataclass(frozen=True)
class Evidence:
    """Test points with their truth [N, L]; by letter of each run with scores: lists, metrics a point."""

    dataset: Dataset
    truth: Csr
    ranked: dict[str, Ranked]
    sums: dict[str, PointSums]

    @property
    def true_n(self) -> NDArray[np.int64]:
        """[N] true labels of each point."""
        return np.diff(self.truth.indptr).astype(np.int64)

    @property
    def depth(self) -> int:
        """Places that every run has stored."""
        return min(lists.ids.shape[1] for lists in self.ranked.values())

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """[L] training points of each label."""
        return np.bincount(self.dataset.trn.relevance.indices, minlength=self.dataset.n_labels).astype(np.int64)


def gather(runs: Sequence[Run], notes: list[str]) -> Evidence | None:
    """Data and lists of the runs; what is missing goes into `notes`, and is None if nothing is left."""
    folder = next((run.data_dir for run in runs if run.data_dir is not None), None)
    if folder is None:
        notes.append(
            f"The data folder of {runs[0].dataset} was not found, so all that needs texts or truth is left out."
        )
        return None
    try:
        dataset = Dataset.load(folder)
    except DataError as error:
        notes.append(f"The data folder cannot be read ({error}), so all that needs texts or truth is left out.")
        return None
    truth = canonical(dataset.tst.relevance)
    found = {run.letter: _ranked_or_note(run, truth, notes) for run in runs}
    ranked = {letter: lists for letter, lists in found.items() if lists is not None}
    if not ranked:
        return None
    weights = _weights(runs[0], dataset)
    return Evidence(dataset, truth, ranked, {letter: _sums(lists, truth, weights) for letter, lists in ranked.items()})


def _weights(run: Run, dataset: Dataset) -> NDArray[np.float64]:
    """[L] inverse propensities, with the constants the run was measured with."""
    counts = np.bincount(dataset.trn.relevance.indices, minlength=dataset.n_labels)
    A, B, _ = propensity_constants(dataset.name, run.metrics.get("A"), run.metrics.get("B"))
    return inverse_propensity(counts, len(dataset.trn), A, B)


def _sums(lists: Ranked, truth: Csr, weights: NDArray[np.float64]) -> PointSums:
    ks = [k for k in KS if k <= lists.ids.shape[1]]
    sums = point_sums(lists.ids, truth, ks, weights)
    return sums.only(metric_columns(sums.values()))


def _ranked_or_note(run: Run, truth: Csr, notes: list[str]) -> Ranked | None:
    path = run.path / SCORES
    if not path.is_file():
        notes.append(
            f"Run {run.letter} has no {SCORES} (it is written at the end of a run with save: true), so its intervals, "
            f"breakdown and examples are left out."
        )
        return None
    try:
        scores = read_scores(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        notes.append(f"Run {run.letter}: {SCORES} cannot be read ({error}); what rests on it is left out.")
        return None
    if scores.shape != truth.shape:
        notes.append(
            f"Run {run.letter}: {SCORES} is {scores.shape[0]} points x {scores.shape[1]} labels, the data "
            f"{truth.shape[0]} x {truth.shape[1]}; what rests on it is left out."
        )
        return None
    ids, values = to_lists(scores)
    return Ranked(ids, values, hits_of(truth, ids))


def read_scores(path: Path) -> Any:
    """Points x labels as CSR; never unpickles."""
    return sparse.csr_array(sparse.load_npz(path))


def to_lists(scores: Csr) -> tuple[Ids, Scores]:
    """The stored cells of points x labels as ranked lists [N, K], K the longest row."""
    counts = np.diff(scores.indptr)
    real = np.arange(max(1, counts.max(initial=0))) < counts[:, None]
    ids, values = np.full(real.shape, -1, np.int64), np.full(real.shape, -np.inf, np.float32)
    ids[real], values[real] = scores.indices, scores.data
    return rank_topk(ids, values)


def hits_of(truth: Csr, ids: Ids) -> Mask:
    """[N, K]: is the label true?"""
    parts = [contains(truth, rows, ids[rows]) for rows in blocks(len(ids), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(ids.shape, bool)
