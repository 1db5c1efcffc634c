"""The metrics of an installed pyxclib and the seconds they took; bench/evaluate.py calls it.

    PEER_PYTHON bench/peer/evaluate_pyxclib.py FOLDER K RESULT

FOLDER holds scores.npz and truth.npz [points, labels] and weights.npy [labels].
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import sparse
from xclib.evaluation.xc_metrics import Metrics  # type: ignore[import-not-found]

NAMES = ("P", "nDCG", "PSP", "PSnDCG")  # the order of what it returns, each a value for every depth 1..k


def main(folder: str, k: str, result: str) -> None:
    scores, truth = (sparse.csr_matrix(sparse.load_npz(Path(folder) / f"{name}.npz")) for name in ("scores", "truth"))
    weights = np.load(Path(folder) / "weights.npy", allow_pickle=False)
    Metrics(truth[:8], weights).eval(scores[:8], int(k))  # compiles what it compiles
    start = time.perf_counter()
    found = Metrics(truth, weights).eval(scores, int(k))
    seconds = time.perf_counter() - start
    values = {
        f"{name}@{depth}": 100 * float(value)
        for name, by_depth in zip(NAMES, found, strict=True)
        for depth, value in enumerate(by_depth, start=1)
    }
    Path(result).write_text(json.dumps({"seconds": seconds, "values": values}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
