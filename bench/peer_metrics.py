"""The metrics of bench/evaluate.py: ours in its process, each peer in one of its own, on the same predictions.

A peer's time is that of its metric call: importing, loading files and compiling are left out.

Legend: N points, L labels, k places.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bench import report
from bench.common import BenchError, ratios, spread
from dexml.evaluation import compute_metrics, inverse_propensity, propensity_constants

FILES = ("Y.trn.npz", "Y.tst.npz")
METRICS_CODE = "utils/helper_utils.py"
DEPTHS = (1, 3, 5, 10, 50, 100)  # those of DEXML's code
TOLERANCE = 1e-4  # percent points, that is 1e-6 of a metric: pyxclib adds nDCG up in float32

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Figures = dict[str, Any]
Command = list[str | Path]


@dataclass(frozen=True)
class Points:
    truth: sparse.csr_matrix
    """[N, L] of 1.0"""
    weights: NDArray[np.float64]
    """[L] inverse propensities from the training points"""

    @classmethod
    def load(cls, data: Path, first: int | None) -> Points:
        trn, tst = (sparse.csr_matrix(sparse.load_npz(data / name), dtype=np.float32) for name in FILES)
        if trn.shape[1] != tst.shape[1]:
            raise BenchError(f"{data}: Y.trn.npz has {trn.shape[1]} labels, Y.tst.npz {tst.shape[1]}")
        truth = tst[:first]
        truth.eliminate_zeros()
        truth.data[:] = 1
        A, B, _ = propensity_constants(data.absolute().name)
        return cls(truth, inverse_propensity(trn.getnnz(axis=0), trn.shape[0], A, B))


def time_metrics(
    points: Points, ids_Nk: Ids, scores_Nk: Floats, peers: Mapping[str, Command], args: argparse.Namespace
) -> Figures:
    """Figures of the metrics and of their agreement."""
    k = ids_Nk.shape[1]
    depths = tuple(depth for depth in DEPTHS if depth <= k)
    work = partial(compute_metrics, ids_Nk, points.truth, ks=depths, inv_propensity=points.weights)

    def ours() -> Figures:
        seconds, values = report.timed(work)
        return {"seconds": seconds, "values": values}

    with tempfile.TemporaryDirectory(prefix="dexml-bench-") as name:
        folder = Path(name)
        if peers:
            write_inputs(folder, points, ids_Nk, scores_Nk)
        sides: dict[str, Callable[[], Figures]] = {"ours": ours}
        for peer, command in peers.items():
            sides[peer] = partial(run_peer, [*command, folder, str(k), folder / "result.json"], args.threads)
        runs = report.take_turns(sides, args.repeats)
    seconds = {side: [run["seconds"] for run in found] for side, found in runs.items()}
    values = runs["ours"][0]["values"]
    return {
        "ours": {"metrics": spread(seconds["ours"])},
        "peer": {f"{peer}_metrics": spread(seconds[peer]) for peer in peers},
        "ratio": {f"{peer}_metrics": ratios(seconds[peer], seconds["ours"]) for peer in peers},
        "agreement": {peer: agreement(values, runs[peer][0]["values"]) for peer in peers},
    }


def run_peer(words: Command, threads: int) -> Figures:
    result = Path(words[-1])
    return report.run_child(words, result, threads, result.parent).result


def peer_commands(args: argparse.Namespace) -> dict[str, Command]:
    """The start of the command of each peer that can run; BenchError if the one asked for cannot."""
    commands: dict[str, Command] = {}
    if args.peer:
        checkout = args.peer.absolute()
        fault = import_fault(args.peer_python, "utils.helper_utils", checkout)
        if fault:
            raise BenchError(f"--peer-python {args.peer_python} cannot load {METRICS_CODE} of --peer: {fault}")
        commands["dexml"] = [args.peer_python, report.PEER / "evaluate_dexml.py", checkout]
    fault = import_fault(args.peer_python, "xclib.evaluation.xc_metrics", report.PEER)
    if fault:
        print(f"pyxclib is left out: {args.peer_python} cannot load it ({fault})", file=sys.stderr)
    else:
        commands["pyxclib"] = [args.peer_python, report.PEER / "evaluate_pyxclib.py"]
    return commands


def import_fault(python: str, module: str, folder: Path) -> str:
    """Why a module cannot be imported with `folder` as the current one; empty if it can."""
    command = [python, "-c", f"import {module}"]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""


def write_inputs(folder: Path, points: Points, ids_Nk: Ids, scores_Nk: Floats) -> None:
    """The same predictions, truth and weights for the peers."""
    n_points, k = ids_Nk.shape
    cells = (scores_Nk.ravel(), ids_Nk.ravel(), np.arange(0, n_points * k + 1, k))
    sparse.save_npz(folder / "scores.npz", sparse.csr_matrix(cells, shape=points.truth.shape), compressed=False)
    sparse.save_npz(folder / "truth.npz", points.truth, compressed=False)
    np.save(folder / "weights.npy", points.weights, allow_pickle=False)


def agreement(ours: Mapping[str, float], peer: Mapping[str, float]) -> Figures:
    """How far the metrics that both have lie apart, in percent points; the peer may have no number (NaN) for some."""
    shared = [name for name in ours if name in peer]
    undefined = [name for name in shared if not np.isfinite(peer[name])]
    gaps = {name: abs(ours[name] - peer[name]) for name in shared if name not in undefined}
    worst = max(gaps, key=lambda name: gaps[name], default=None)
    largest = gaps[worst] if worst else 0.0
    agrees = bool(gaps) and largest <= TOLERANCE
    return {"compared": len(gaps), "largest": largest, "worst": worst, "undefined": undefined, "agrees": agrees}
