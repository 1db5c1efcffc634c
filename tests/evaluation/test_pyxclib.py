"""The same figures as pyxclib, where it is installed (it is not on PyPI: bench/evaluate.py says how)."""

import numpy as np
import pytest
from scipy import sparse

from dexml.evaluation import compute_metrics, inverse_propensity
from dexml.index import rank_topk

xc_metrics = pytest.importorskip("xclib.evaluation.xc_metrics", reason="pyxclib is not installed")

KS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("seed", range(20))
def test_random_score_matrices_without_ties_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, labels, places = 200, 60, 12
    ids = np.argsort(rng.random((points, labels)), axis=1)[:, :places]
    ids, scores = rank_topk(ids, rng.permutation(points * places).reshape(points, places) + 1.0)
    truth = sparse.csr_matrix((rng.random((points, labels)) < 0.08).astype(np.float32))
    q = inverse_propensity(rng.integers(0, 200, labels), 200, 0.55, 1.5)
    cells = (scores.ravel(), ids.ravel(), np.arange(0, points * places + 1, places))
    theirs = xc_metrics.Metrics(truth, q).eval(sparse.csr_matrix(cells, shape=truth.shape), max(KS))
    ours = compute_metrics(ids, truth, KS, q)
    for name, values in zip(("P", "nDCG", "PSP", "PSnDCG"), theirs, strict=True):
        assert [ours[f"{name}@{k}"] / 100 for k in KS] == pytest.approx(list(values), abs=1e-6)
