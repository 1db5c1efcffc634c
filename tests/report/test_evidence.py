from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from dexml.report.evidence import gather, hits_of, to_lists
from dexml.report.run import Run
from tests.report.folders import N_TST, K, predict, write_run


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_lists_are_the_stored_cells_of_each_row_best_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((7, 9)) < 0.4, rng.integers(0, 3, (7, 9)), -1)  # ties, and a stored 0
    rows, columns = np.nonzero(dense >= 0)
    scores = sparse.csr_array((dense[rows, columns].astype(np.float32), (rows, columns)), shape=dense.shape)
    ids, values = to_lists(scores)
    for row in range(7):
        expected = sorted((-dense[row, label], label) for label in range(9) if dense[row, label] >= 0)
        real = ids[row] >= 0
        assert list(zip((-values[row, real]).tolist(), ids[row, real].tolist(), strict=True)) == expected


def test_a_hit_is_a_true_label(root: Path) -> None:
    ids, _ = predict(root / "Datasets" / "Made", noise=2.0)
    truth = sparse.load_npz(root / "Datasets" / "Made" / "Y.tst.npz").tocsr()
    dense = truth.toarray()
    expected = [[dense[row, label] > 0 for label in ids[row]] for row in range(N_TST)]
    assert (hits_of(truth, ids) == np.array(expected)).all()


def test_sums_are_those_of_the_metrics_that_the_run_wrote(root: Path) -> None:
    run = Run.read(write_run(root))
    evidence = gather([run], notes := [])
    assert evidence is not None and not notes
    assert evidence.depth == K
    found = evidence.sums["A"].values()
    assert {"P@1", "P@5", "nDCG@3", "PSP@5", "R@10"} <= set(found)
    for name, value in found.items():
        assert abs(value - run.metrics[name]) < 1e-9


def test_a_run_without_scores_does_not_hide_the_others(root: Path) -> None:
    runs = [Run.read(write_run(root, "one"), "A"), Run.read(write_run(root, "two"), "B")]
    (runs[0].path / "tst_score_mat.npz").unlink()
    evidence = gather(runs, notes := [])
    assert evidence is not None and list(evidence.ranked) == ["B"]
    assert len(notes) == 1 and notes[0].startswith("Run A has no tst_score_mat.npz")
