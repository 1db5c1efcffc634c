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
        """[len(pool)] -ln P(the label is a positive of the other batch_size - 1 points of a batch without it)."""
        chances = _chances(self.points - 1, self.hits[pool], min(batch_size, self.points) - 1)
        return -np.log(np.maximum(chances, 1 / self.points))

    def expected(self, batch_size: int) -> float:
        """How many labels the positives of a batch are, each counted once."""
        return float(_chances(self.points, self.hits, min(batch_size, self.points)).sum())


def _chances(n: int, hits: NDArray[np.float64], b: int) -> NDArray[np.float64]:
    """P(one of b points is a hit), drawn without replacement from n: all but C(n - hits, b) / C(n, b)."""
    without = np.maximum(n - hits, b - 1 + 1e-9)  # below b nothing is left to draw: log_none -> -inf
    log_none = gammaln(without + 1) - gammaln(without - b + 1) - gammaln(n + 1) + gammaln(n - b + 1)
    return -np.expm1(log_none)
