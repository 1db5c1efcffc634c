"""bench/evaluate.py on toy data, with a peer of twenty lines; the comparing of metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from bench.common import BenchError
from bench.evaluate import describe, embeddings, search_bare
from bench.peer_metrics import Points, agreement, import_fault, write_inputs
from dexml.evaluation import inverse_propensity
from tests.helpers.datasets import make_toy
from tests.helpers.processes import ROOT

PEER_CODE = """
import numpy as np

def compute_xmc_metrics(scores, truth, weights, K, disp):
    return {name: round(value, 2) for name, value in _compute_xmc_metrics(scores, truth, K)["P"].items()}

def _compute_xmc_metrics(scores, truth, K):
    hits = []
    for row in range(scores.shape[0]):
        cells = scores[[row]]
        best = cells.indices[np.argsort(-cells.data, kind="stable")]
        hits.append(np.isin(best, truth[[row]].indices))
    return {"P": {k: SCALE * np.mean([row[:k].sum() / k for row in hits]) for k in (1, 3, 5, 10)}, "MRR": {10: np.nan}}
"""


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench" / "evaluate.py", *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)


def fake_peer(folder: Path, scale: float) -> Path:
    (folder / "utils").mkdir(parents=True)
    (folder / "utils" / "helper_utils.py").write_text(PEER_CODE.replace("SCALE", str(scale)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy") / "Toy")


def toy_words(toy: Path, out: Path) -> list[str | Path]:
    return ["--data", toy, "--width", "16", "--repeats", "1", "--threads", "1", "--json", out]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_ours_alone_gives_table_and_json_with_bare_faiss_as_the_peer(toy: Path, tmp_path: Path) -> None:
    done = bench(*toy_words(toy, tmp_path / "out.json"), "--points", "20", "--peer-python", sys.executable)
    assert done.returncode == 0, done.stderr
    assert "pyxclib is left out" in done.stderr
    assert done.stdout.startswith("20 test points")
    first_words = [line.split(";")[0] for line in done.stdout.splitlines()[2:6]]
    assert first_words == ["metrics", "metrics", "FlatSearcher", "LabelIndex"]
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["ours"]) == {"metrics", "search", "index_search"}
    assert set(found["peer"]) == {"faiss_search"}
    assert set(found["ratio"]) == {"faiss_search", "faiss_index_search"}
    seconds = [found[side][key]["all"][0] for side, key in (("peer", "faiss_search"), ("ours", "search"))]
    assert found["ratio"]["faiss_search"]["median"] == pytest.approx(seconds[0] / seconds[1])
    assert found["search"]["FlatSearcher"] == {"same_ids": 1.0, "gap": 0.0}
    assert found["agreement"] == {}
    assert found["settings"]["points"] == 20


@pytest.mark.parametrize(("scale", "status"), [(100, 0), (101, 1)])
def test_a_peers_metrics_are_compared_before_they_are_rounded(
    toy: Path, tmp_path: Path, scale: float, status: int
) -> None:
    peer = fake_peer(tmp_path / "peer", scale)
    done = bench(*toy_words(toy, tmp_path / "out.json"), "--peer", peer, "--peer-python", sys.executable)
    assert done.returncode == status, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    one = found["agreement"]["dexml"]
    assert (one["compared"], one["undefined"], one["agrees"]) == (4, ["MRR@10"], status == 0)
    if status == 0:
        assert one["largest"] < 1e-9
    else:  # the largest metric is P@1
        assert one["worst"] == "P@1" and 0.3 < one["largest"] <= 1
    seconds = [found[side][key]["all"][0] for side, key in (("peer", "dexml_metrics"), ("ours", "metrics"))]
    assert found["ratio"]["dexml_metrics"]["median"] == pytest.approx(seconds[0] / seconds[1])
    assert f"dexml: 4 metrics {'DIFFER' if status else 'agree'}" in done.stdout


def test_a_peer_that_cannot_be_loaded_is_told_before_any_long_work(toy: Path, tmp_path: Path) -> None:
    peer = fake_peer(tmp_path / "peer", 100)
    (peer / "utils" / "helper_utils.py").write_text("import no_such_module")
    done = bench("--data", toy, "--peer", peer, "--peer-python", sys.executable)
    assert done.returncode == 1
    assert done.stderr.endswith("cannot load utils/helper_utils.py of --peer: "
                                "ModuleNotFoundError: No module named 'no_such_module'\n")  # fmt: skip
    assert "round 1" not in done.stderr


def test_a_missing_matrix_is_named(tmp_path: Path) -> None:
    done = bench("--data", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"evaluate.py: {tmp_path}/Y.trn.npz is missing")


# ---- its parts ------------------------------------------------------------------------------------------------------


def test_points_are_cut_binary_and_weighted_by_the_training_counts(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "Y.trn.npz", sparse.csr_matrix([[1, 0, 2], [1, 0, 0], [1, 1, 0]], dtype=np.float32))
    sparse.save_npz(tmp_path / "Y.tst.npz", sparse.csr_matrix([[0, 3, 0], [0.5, 0, 1], [1, 1, 1]], dtype=np.float32))
    points = Points.load(tmp_path, 2)
    assert points.truth.toarray().tolist() == [[0, 1, 0], [1, 0, 1]]
    assert points.weights.tolist() == inverse_propensity([3, 1, 1], 3, 0.55, 1.5).tolist()
    sparse.save_npz(tmp_path / "Y.tst.npz", sparse.csr_matrix(np.eye(2, 4, dtype=np.float32)))
    with pytest.raises(BenchError, match=r"Y.trn.npz has 3 labels, Y.tst.npz 4"):
        Points.load(tmp_path, None)


def test_embeddings_are_unit_vectors_near_their_labels() -> None:
    truth = sparse.csr_matrix(np.eye(30, 40, dtype=np.float32))
    query_ND, label_LD = embeddings(truth, 64)
    assert np.allclose(np.linalg.norm(query_ND, axis=1), 1, atol=1e-5)
    assert ((query_ND @ label_LD.T).argmax(axis=1) == np.arange(30)).all()
    assert (embeddings(truth, 64)[0] == query_ND).all()


def test_bare_search_covers_a_last_short_block(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr("bench.evaluate.BLOCK", 8)
    query_ND, label_LD = embeddings(sparse.csr_matrix(np.eye(19, 25, dtype=np.float32)), 16)
    index = faiss.IndexFlatIP(16)
    index.add(label_LD)
    ids, scores = search_bare(index, query_ND, 5)
    dense = query_ND @ label_LD.T
    assert (ids == np.argsort(-dense, axis=1)[:, :5]).all()
    assert np.allclose(scores, -np.sort(-dense, axis=1)[:, :5], atol=1e-6)


def test_the_peers_score_matrix_holds_the_same_predictions(tmp_path: Path) -> None:
    points = Points(sparse.csr_matrix(np.eye(2, 5, dtype=np.float32)), np.ones(5))
    ids, scores = np.array([[3, 0], [1, 4]]), np.array([[0.9, 0.2], [0.5, -0.1]], np.float32)
    write_inputs(tmp_path, points, ids, scores)
    stored = sparse.load_npz(tmp_path / "scores.npz").toarray()
    assert (np.take_along_axis(stored, ids, axis=1) == scores).all()
    assert np.count_nonzero(stored) == 4
    assert (sparse.load_npz(tmp_path / "truth.npz").toarray() == np.eye(2, 5)).all()


@pytest.mark.parametrize(
    ("peer", "compared", "worst", "agrees"),
    [
        ({"P@1": 50.0, "P@3": 40.00005, "X": 3.0}, 2, "P@3", True),
        ({"P@1": 50.0002, "P@3": 40.0}, 2, "P@1", False),
        ({"P@1": float("nan"), "P@3": 40.0}, 1, "P@3", True),
        ({"P@1": float("nan")}, 0, None, False),
        ({}, 0, None, False),
    ],
)
def test_metrics_agree_to_a_millionth(peer: dict[str, float], compared: int, worst: str | None, agrees: bool) -> None:
    found = agreement({"P@1": 50.0, "P@3": 40.0, "R@1": 1.0}, peer)
    assert (found["compared"], found["worst"], found["agrees"]) == (compared, worst, agrees)
    assert ("no number there: P@1" in describe("dexml", found)) is bool(found["undefined"])


def test_why_a_module_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("")
    assert import_fault(sys.executable, "good", tmp_path) == ""
    assert import_fault(sys.executable, "bad", tmp_path) == "ModuleNotFoundError: No module named 'bad'"
