"""Ensembles of stored predictions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, load_npz, save_npz

from dexml.cli import main
from dexml.config import Config
from dexml.evaluation.ensemble import sum_scores
from tests.training.runs import train


def lists(*rows: dict[int, float], n_labels: int = 9) -> csr_matrix:
    cells = [(i, label, score) for i, row in enumerate(rows) for label, score in row.items()]
    row, label, score = zip(*cells, strict=True)
    return csr_matrix((score, (row, label)), shape=(len(rows), n_labels))


def test_a_label_that_is_in_one_list_only() -> None:
    found = sum_scores([lists({1: 0.9, 2: 0.5}), lists({2: 0.6, 3: 0.2})], 3)
    assert found.ids[0].tolist() == [2, 1, 3]
    assert found.scores[0].tolist() == pytest.approx([1.1, 0.9, 0.2])
    found = sum_scores([lists({5: 0.9, 3: 0.4}), lists({3: 0.6, 7: 0.55})], 4)
    assert found.ids.tolist() == [[3, 5, 7, -1]]
    assert found.scores[0, :3].tolist() == pytest.approx([1.0, 0.9, 0.55])
    assert found.scores[0, 3] == -np.inf


def test_probabilities_are_added_not_logits() -> None:
    def probabilities(*logits: float) -> csr_matrix:
        return csr_matrix(1 / (1 + np.exp(-np.array([logits]))))

    found = sum_scores([probabilities(6, 0), probabilities(-3, 1)], 2)
    assert found.ids.tolist() == [[1, 0]]
    assert found.scores[0].tolist() == pytest.approx([1.231059, 1.044953], abs=1e-6)


def test_equal_sums_come_by_id_and_empty_rows_stay_empty() -> None:
    one = csr_matrix(([0.5, 0.5, 0.25], ([0, 0, 2], [4, 2, 1])), shape=(3, 9))
    found = sum_scores([one, one], 2)
    assert found.ids.tolist() == [[2, 4], [-1, -1], [1, -1]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Config]:
    root = tmp_path_factory.mktemp("ensemble")
    keys = {"net": "lightxml", "doc_layers": 1, "lxml_cluster_size": 8, "lxml_dim": 8, "clf_lr": 0.03, "num_epochs": 2}
    return [train(root, expname=f"seed{seed}", seed=seed, **keys)[0] for seed in (0, 1)]


def test_the_command_measures_each_and_all(
    runs: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ensemble", *(str(cfg.out_dir) for cfg in runs), "--out", str(tmp_path / "both")]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("seed0", "seed1", "ensemble", "P@5"))
    joined = load_npz(tmp_path / "both" / "tst_score_mat.npz")
    first = load_npz(runs[0].out_dir / "tst_score_mat.npz")
    assert joined.shape == first.shape and joined.data.max() <= 2
    assert (tmp_path / "both" / "tst_metrics.json").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), "is not the folder of a run"),
        (lambda run: (run / "tst_score_mat.npz").unlink(), "tst_score_mat.npz is missing: `dexml eval tst"),
        (lambda run: save_npz(run / "tst_score_mat.npz", csr_matrix((3, 4))), r"is \(3, 4\), the data are \(50, 30\)"),
        (lambda run: save_npz(run / "tst_score_mat.npz", csr_matrix(np.full((50, 30), 2.0))), "are not probabilities"),
    ],
)
def test_what_cannot_be_joined_is_told(
    runs: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it, message: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[1].out_dir, other)
    break_it(other)
    assert main(["ensemble", str(runs[0].out_dir), str(other)]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)


def test_one_run_is_no_ensemble(runs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensemble", str(runs[0].out_dir)]) == 2
    assert "two runs at least" in capsys.readouterr().err
