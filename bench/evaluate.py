"""Seconds of the metrics and of the exact search of a test set, beside DEXML's and pyxclib's code and bare FAISS.

    python bench/evaluate.py --data Datasets/YSO-Finna-EN
    python bench/evaluate.py --data Datasets/YSO-Finna-EN --peer ../DEXML --peer-python ../peer/bin/python --json x.json
    python bench/evaluate.py --data Datasets/Iconclass-KW-en --points 500 --repeats 1      # a laptop: seconds

Queries are the mean of their labels' random unit vectors plus noise, so that some labels are found and others missed.
What the search finds are the predictions: ours measures the ids, the others the sparse score matrix that they take.
"peer / ours" is how many times less ours takes: 0.83 or more in a search is within 1.2 times the bare call.

pyxclib takes part where --peer-python has it. It is not on PyPI: pip install cython numba scikit-learn six, then
pip install --no-deps --no-build-isolation git+https://github.com/kunaldahiya/pyxclib

Legend: N points, L labels, D width, k places.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # not this folder: its tokenize.py has the name of a module of the standard library
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bench import report
from bench.common import ratios, spread, write_json
from bench.peer_metrics import FILES, METRICS_CODE, Points, peer_commands, time_metrics
from dexml.index import FlatSearcher, LabelIndex

NOISE = 0.05  # deviation of a query's coordinate
BLOCK = 1024  # queries that FAISS gets at a time, on both sides
SCORE_TOLERANCE = 1e-5  # the last bits of a score follow the order of its sum

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Figures = dict[str, Any]


def main(argv: list[str], description: str) -> int:
    """Exit status 1 if a peer's metrics are not ours, or the scores found not those of FAISS."""
    args = parse(argv, description)
    report.check_arguments(args, FILES, METRICS_CODE)
    peers = peer_commands(args)
    points = Points.load(args.data, args.points)
    n_points, n_labels = points.truth.shape
    k = min(args.k, n_labels)
    query_ND, label_LD = embeddings(points.truth, args.width)
    search, ids_Nk, scores_Nk = time_search(query_ND, label_LD, k, args)
    metrics = time_metrics(points, ids_Nk, scores_Nk, peers, args)
    found = {key: metrics[key] | search[key] for key in ("ours", "peer", "ratio")}
    found |= {"agreement": metrics["agreement"], "search": search["search"], "settings": report.settings(args)}
    print(f"{n_points:,} test points of {args.data}, {n_labels:,} labels, top-{k}, {args.threads} threads")
    print(render(found))
    if args.json:
        write_json(args.json, found)
    same_search = all(one["gap"] <= SCORE_TOLERANCE for one in found["search"].values())
    return int(not (same_search and all(one["agrees"] for one in found["agreement"].values())))


def parse(argv: list[str], description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    report.add_arguments(parser)
    parser.add_argument("--points", type=int, help="only the first so many test points")
    parser.add_argument("--k", type=int, default=100, help="labels found for a point")
    parser.add_argument("--width", type=int, default=384, help="of the embeddings")
    return parser.parse_args(argv)


# ---- what is evaluated ----------------------------------------------------------------------------------------------


def embeddings(truth: sparse.csr_matrix, width: int) -> tuple[Floats, Floats]:
    """Unit vectors of the points [N, D] and of the labels [L, D], the same ones every time."""
    rng = np.random.default_rng(0)
    label_LD = unit(rng.standard_normal((truth.shape[1], width), dtype=np.float32))
    per_point = np.maximum(truth.getnnz(axis=1), 1).astype(np.float32)
    near_ND = np.asarray(truth @ label_LD) / per_point[:, None]
    return unit(near_ND + NOISE * rng.standard_normal(near_ND.shape, dtype=np.float32)), label_LD


def unit(rows: Floats) -> Floats:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ---- search ---------------------------------------------------------------------------------------------------------


def time_search(query_ND: Floats, label_LD: Floats, k: int, args: argparse.Namespace) -> tuple[Figures, Ids, Floats]:
    """Figures of the search, and the ids and scores [N, k] that ours found."""
    import faiss

    faiss.omp_set_num_threads(args.threads)
    bare = faiss.IndexFlatIP(label_LD.shape[1])
    bare.add(label_LD)
    searcher, index = FlatSearcher(label_LD), LabelIndex.build(label_LD)
    work: dict[str, Callable[[Floats], tuple[Ids, Floats]]] = {
        "FlatSearcher": lambda queries: searcher.search(queries, k, BLOCK),
        "LabelIndex": lambda queries: index.search(queries, k),
        "FAISS": lambda queries: search_bare(bare, queries, k),
    }
    for search in work.values():  # threads are started, memory is taken
        search(query_ND[:BLOCK])
    results: dict[str, tuple[Ids, Floats]] = {}

    def side(name: str) -> float:
        seconds, results[name] = report.timed(partial(work[name], query_ND))
        return seconds

    seconds = report.take_turns({name: partial(side, name) for name in work}, args.repeats)
    ids_Nk, scores_Nk = results["FlatSearcher"]
    bare_ids_Nk, bare_scores_Nk = results.pop("FAISS")
    figures = {
        "ours": {"search": spread(seconds["FlatSearcher"]), "index_search": spread(seconds["LabelIndex"])},
        "peer": {"faiss_search": spread(seconds["FAISS"])},
        "ratio": {
            "faiss_search": ratios(seconds["FAISS"], seconds["FlatSearcher"]),
            "faiss_index_search": ratios(seconds["FAISS"], seconds["LabelIndex"]),
        },
        "search": {
            name: {"same_ids": float((ids == bare_ids_Nk).mean()), "gap": float(np.abs(scores - bare_scores_Nk).max())}
            for name, (ids, scores) in results.items()
        },
    }
    return figures, ids_Nk, scores_Nk


def search_bare(index: Any, query_ND: Floats, k: int) -> tuple[Ids, Floats]:
    """FAISS itself, block by block into two arrays: what a search cannot avoid."""
    ids_Nk, scores_Nk = np.empty((len(query_ND), k), np.int64), np.empty((len(query_ND), k), np.float32)
    for begin in range(0, len(query_ND), BLOCK):
        rows = slice(begin, begin + BLOCK)
        scores_Nk[rows], ids_Nk[rows] = index.search(query_ND[rows], k)
    return ids_Nk, scores_Nk


# ---- the table ------------------------------------------------------------------------------------------------------

ROWS = (  # what is done, and the keys of ours, peer and ratio
    ("metrics; DEXML's code", "metrics", "dexml_metrics", "dexml_metrics"),
    ("metrics; pyxclib", "metrics", "pyxclib_metrics", "pyxclib_metrics"),
    ("FlatSearcher; bare FAISS", "search", "faiss_search", "faiss_search"),
    ("LabelIndex; bare FAISS", "index_search", "faiss_search", "faiss_index_search"),
)


def render(found: Figures) -> str:
    """Seconds, medians with their extremes; ratios are taken round by round."""
    rows = [
        [name, *(report.shown(found[side].get(key)) for side, key in zip(("ours", "peer", "ratio"), keys, strict=True))]
        for name, *keys in ROWS
    ]
    lines = [report.table(["seconds, median (extremes)", "ours", "peer", "peer / ours"], rows)]
    for name, one in found["search"].items():  # of equal scores FAISS takes any, ours the smaller id
        lines.append(f"{name}: {one['same_ids']:.4%} of the ids are FAISS's, scores differ by {one['gap']:.0e} at most")
    return "\n".join(lines + [describe(peer, one) for peer, one in found["agreement"].items()])


def describe(peer: str, one: Figures) -> str:
    verdict = "agree" if one["agrees"] else "DIFFER"
    text = f"{peer}: {one['compared']} metrics {verdict}, at most {one['largest']:.1e} percent points ({one['worst']})"
    if one["undefined"]:
        text += f"; no number there: {', '.join(one['undefined'])} (points without labels)"
    return text


if __name__ == "__main__":
    report.run_cli(main, str(__doc__))
