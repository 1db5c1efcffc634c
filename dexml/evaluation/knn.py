"""Labels from the nearest training points: alone (`knn`), or mixed with the scores of the labels themselves (`mix`).

A query's k nearest training points vote for their labels, point j with weight softmax_j(similarity_j / tau), and the
votes of a query are divided by their sum. The label side is softmax(similarity / label_tau) over the query's stored
labels, or their probabilities divided by their sum. Both are then distributions over labels, whatever the scale of the
similarities and however many labels a point has, and

    mix = (1 - weight) * label side + weight * votes

over the labels of either side; what one side lacks counts there as 0. Rare labels have few points to vote for them, so
PSP may fall where P rises: report both.

Softmax-weighted training points beside label embeddings are RAE-XMC's (arXiv 2502.10615, which puts both into one
softmax); ViXML (arXiv 2511.13189) reports kNN over training queries with and without.

N queries, M training points, L labels, K places kept, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from dexml.evaluation.retrieval import Predictions
from dexml.evaluation.topk import blocks

BLOCK = 8192  # queries at a time
TINY = np.finfo(np.float64).tiny
FLOOR = -700.0  # exp of less is 0 in float64, and a score of 0 is no candidate


@dataclass(frozen=True)
class Vote:
    """How neighbours vote: `weight` 1 is the vote alone."""

    k: int
    weight: float
    tau: float
    label_tau: float | None
    """None: label scores are probabilities"""

    def predict(
        self,
        labels: Predictions,
        neighbours: Predictions,
        relevance: csr_matrix,
        places: int,
        filters: csr_matrix | None = None,
    ) -> Predictions:
        """The best `places` labels by votes and label scores; equal ones by smaller id.

        Args:
            labels: [N, K], filtered.
            neighbours: at least k a query if there are that many: rows of `relevance`, best first.
            relevance: [M, L]; what is stored and not 0 is a label.
            filters: [N, L], cells that get no vote.
        """
        empty = Predictions(np.empty((0, places), np.int64), np.empty((0, places), np.float32))
        parts = [empty]
        for rows in blocks(len(neighbours.ids), BLOCK):
            near = Predictions(neighbours.ids[rows, : self.k], neighbours.scores[rows, : self.k])
            scores = self.weight * votes(near, relevance, self.tau, None if filters is None else filters[rows])
            if self.weight < 1:
                own = shares(labels.part(rows), self.label_tau, relevance.shape[1])
                scores = scores + (1 - self.weight) * own
            parts.append(best(csr_array(scores), places))
        ids, values = (np.concatenate(arrays) for arrays in zip(*((p.ids, p.scores) for p in parts), strict=True))
        return Predictions(ids, values)


def votes(neighbours: Predictions, relevance: csr_matrix, tau: float, filters: csr_matrix | None = None) -> csr_array:
    """[N, L]: the share of each label in the votes of a query's neighbours; a query without votes has an empty row."""
    found = shares(neighbours, tau, relevance.shape[0]) @ csr_array(relevance.astype(bool).astype(np.float64))
    if filters is not None:
        found = csr_array(found - found * csr_array(filters.astype(bool)))
        found.eliminate_zeros()
    sums = np.asarray(found.sum(axis=1)).ravel()
    found.data /= np.repeat(sums, np.diff(found.indptr))
    return found


def shares(lists: Predictions, tau: float | None, width: int) -> csr_array:
    """[N, width]: softmax(score / tau) over the places of each list, float64; every real place is above 0.

    Without tau the scores are probabilities, divided by the sum of their list.
    """
    real = lists.ids >= 0
    scores = lists.scores.astype(np.float64)
    scaled = np.where(real, np.log(np.maximum(scores, TINY)) if tau is None else scores / tau, -np.inf)
    top = np.where(real.any(axis=1, keepdims=True), scaled.max(axis=1, keepdims=True), 0.0)
    weights = np.where(real, np.exp(np.maximum(scaled - top, FLOOR)), 0.0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), TINY)
    indptr = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    return csr_array((weights[real], lists.ids[real], indptr), shape=(len(real), width))


def best(scores: csr_array, places: int) -> Predictions:
    """The highest stored scores of each row, equal ones by smaller id; short rows are padded."""
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    order = np.lexsort((scores.indices, -scores.data, rows))
    place = np.arange(len(rows)) - scores.indptr[rows]  # rows are the same before and after the sort
    kept = place < places
    ids = np.full((scores.shape[0], places), -1, np.int64)
    values = np.full(ids.shape, -np.inf, np.float32)
    ids[rows[kept], place[kept]] = scores.indices[order[kept]]
    values[rows[kept], place[kept]] = scores.data[order[kept]]
    return Predictions(ids, values)
