"""LogQ correction: in-batch negatives weighted so that they stand for all labels.

A frequent label is in most batches, a rare one in few: trained on them as they come, a model learns to score frequent
labels too low. With a weight of one over its chance to be in the batch, each label enters the sum of e^score as
often as it should, and the sum estimates that over all labels without bias (importance sampling; compare the
correction of Yi et al., RecSys 2019, who change the score of the positive too).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import gammaln

from dexml.data.batching import Ints


class LogQ:
    """Chances of the labels of `relevance` [points, labels] to be drawn as positives of a batch.

    Args:
        sampled: one positive is kept of each point, drawn by relevance; else all are.
    """

    def __init__(self, relevance: csr_matrix, sampled: bool) -> None:
        cells = relevance.copy()
        if sampled:
            cells.data /= np.repeat(np.asarray(cells.sum(1)).ravel(), np.diff(cells.indptr))
        else:
            cells.data = np.ones_like(cells.data)
        self.points = relevance.shape[0]
        self.hits = np.asarray(cells.sum(0), np.float64).ravel()
        """[L] points that draw the label, in expectation"""

    def log_weights(self, pool: Ints, batch_size: int) -> NDArray[np.float64]:
        """[len(pool)] -ln P(the label is a positive of the other batch_size - 1 points of a batch without it).

        The others are drawn without replacement, none of them at all with P = C(n - hits, b) / C(n, b).
        """
        n, b = self.points - 1, min(batch_size, self.points) - 1
        without = np.maximum(n - self.hits[pool], b - 1 + 1e-9)  # below b nothing is left to draw: log_none -> -inf
        log_none = gammaln(without + 1) - gammaln(without - b + 1) - gammaln(n + 1) + gammaln(n - b + 1)
        return -np.log(np.maximum(-np.expm1(log_none), 1 / self.points))
