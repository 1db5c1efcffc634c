"""The metrics of a DEXML checkout's own code and the seconds they took; bench/evaluate.py calls it.

    PEER_PYTHON bench/peer/evaluate_dexml.py CHECKOUT FOLDER K RESULT

FOLDER holds scores.npz and truth.npz [points, labels] and weights.npy [labels].
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse


def main(checkout: str, folder: str, k: str, result: str) -> None:
    sys.path[0] = checkout
    from utils import helper_utils  # type: ignore[attr-defined]  # the checkout's, not ours

    scores, truth = (sparse.load_npz(Path(folder) / f"{name}.npz") for name in ("scores", "truth"))
    weights = np.load(Path(folder) / "weights.npy", allow_pickle=False)
    exact: dict[str, dict[int, float]] = {}
    inner = helper_utils._compute_xmc_metrics

    def keep(
        *args: Any, **kwargs: Any
    ) -> dict[str, dict[int, float]]:  # the outer function rounds what this one returns
        exact.update(inner(*args, **kwargs))
        return exact

    helper_utils._compute_xmc_metrics = keep
    start = time.perf_counter()
    helper_utils.compute_xmc_metrics(scores, truth, weights, K=int(k), disp=False)
    seconds = time.perf_counter() - start
    values = {f"{name}@{depth}": float(value) for name, by_depth in exact.items() for depth, value in by_depth.items()}
    Path(result).write_text(json.dumps({"seconds": seconds, "values": values}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
