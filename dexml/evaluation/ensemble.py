"""Several models as one: the scores of a label are added up over their lists.

N points, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
from scipy.sparse import csr_matrix

from dexml.evaluation.retrieval import Predictions


def sum_scores(members: Sequence[csr_matrix], k: int) -> Predictions:
    """The k labels of the largest sums, of equals the smaller id first.

    Args:
        members: probabilities [N, L] of each model's stored lists; a label that is not in a list counts as 0.
    """
    total = csr_matrix(reduce(add, [member.astype(np.float64) for member in members]))
    row = np.repeat(np.arange(total.shape[0]), np.diff(total.indptr))
    order = np.lexsort((total.indices, -total.data, row))
    rank = np.arange(total.nnz) - total.indptr[row]
    kept = rank < k
    ids = np.full((total.shape[0], k), -1, np.int64)
    scores = np.full(ids.shape, -np.inf, np.float32)
    ids[row[kept], rank[kept]] = total.indices[order[kept]]
    scores[row[kept], rank[kept]] = total.data[order[kept]]
    return Predictions(ids, scores)
