"""Run folders of a made-up data set, as training leaves them, written in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import sparse

from dexml.evaluation import compute_metrics, inverse_propensity
from dexml.evaluation.evaluator import Predictions
from tests.helpers.datasets import write_dataset

HOSTILE = (
    "<script>alert(document.title)</script>",
    "\"quoted\" 'twice' & <b>bold</b>",
    "W" * 400,
    "مرحبا بالعالم \u202eright to left",
    "</style></pre></details>",
    "{{ 7 * 7 }} {% raw %} $x_1$",
)
N_TRN, N_TST, K = 60, 40, 10


def write_data(root: Path, labels: Sequence[str] = HOSTILE, n_labels: int = 30, long_text: str = "") -> Path:
    """Datasets/Made with these labels first; the last one has no training point, the last test point no label."""
    names = [*labels, *(f"label {i}" for i in range(len(labels), n_labels))]
    rng = np.random.default_rng(0)

    def points(n: int) -> tuple[list[str], np.ndarray]:
        relevance = (rng.random((n, n_labels)) < 0.1).astype(np.float32)
        relevance[np.arange(n), rng.integers(0, n_labels - 1, n)] = 1
        return [f"point {i} " + " ".join(names[j] for j in np.flatnonzero(relevance[i])) for i in range(n)], relevance

    trn, tst = points(N_TRN), points(N_TST)
    trn[1][:, -1] = 0
    tst[1][-1] = 0
    if long_text:
        tst[0][:] = [long_text] * N_TST
    return write_dataset(root / "Datasets" / "Made", trn, tst, names)


def write_run(root: Path, name: str = "one", noise: float = 0.5, epochs: int = 3, **config: Any) -> Path:
    """A finished run whose scores are the truth blurred by `noise`."""
    folder = root / "Results" / "DEXML" / "Made" / name
    folder.mkdir(parents=True)
    data = root / "Datasets" / "Made"
    keys = {"expname": name, "dataset": "Made", "data_root": str(root / "Datasets"), "num_epochs": epochs} | config
    (folder / "config.yaml").write_text(yaml.safe_dump(keys, sort_keys=False, allow_unicode=True), encoding="utf-8")
    ids, scores = predict(data, noise)
    truth, trained = (sparse.load_npz(data / f"Y.{split}.npz").tocsr() for split in ("tst", "trn"))
    weights = inverse_propensity(np.bincount(trained.indices, minlength=truth.shape[1]), N_TRN, 0.55, 1.5)
    metrics = compute_metrics(ids, truth, inv_propensity=weights)
    facts = {"n_docs": N_TST, "A": 0.55, "B": 1.5}
    (folder / "metrics.json").write_text(json.dumps({**metrics, **facts}))
    sparse.save_npz(folder / "tst_score_mat.npz", Predictions(ids, scores).to_csr(truth.shape[1]))
    write_log(folder, epochs, metrics)
    return folder


def predict(data: Path, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Ids and scores [N, K], best first."""
    truth = sparse.load_npz(data / "Y.tst.npz").toarray()
    blurred = truth + noise * np.random.default_rng(1).random(truth.shape)
    ids = np.argsort(-blurred, axis=1)[:, :K]
    return ids.astype(np.int64), np.take_along_axis(blurred, ids, axis=1).astype(np.float32)


def write_log(folder: Path, epochs: int, metrics: dict[str, float]) -> None:
    lines, entries = ["2026-01-02 03:04:00 INFO rank 0 of 1 on cpu", "2026-01-02 03:04:00 INFO 3 epochs, bf16"], []
    for step in range(10, 20 * epochs + 1, 10):
        stamp = f"2026-01-02 03:{4 + step // 60:02}:{step % 60:02}"
        lines.append(f"{stamp} DEBUG step {step}/{20 * epochs}, loss {9 / step:.4f}, 70 labels/s, 900 tokens/s, lr 0.1")
    for epoch in range(1, epochs + 1):
        values = {key: value * epoch / epochs for key, value in metrics.items()}
        entries.append({"split": "val", "epoch": epoch, "step": 20 * epoch, "loss": 1 / epoch, **values})
    (folder / "log.txt").write_text("\n".join(lines) + "\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
