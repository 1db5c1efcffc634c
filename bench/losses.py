"""Seconds and peak memory of the losses, value and both gradients, against the matrix products they cannot avoid.

    python bench/losses.py                                # 1,024 queries x 131,072 labels, 384 wide: two minutes
    python bench/losses.py --queries 256 --labels 32768   # a laptop, half a minute
    python bench/losses.py --labels 1310720 --width 64 --only tiled/decoupled-softmax tiled/topk
    python bench/losses.py --json out.json                # the same table as JSON

Every case runs in a process of its own. "extra MB" is the growth of resident memory during the call, without the
gradients that the call returns. "products" are the four matrix products of a tiled loss: scores twice, one a gradient.
"tiled, torch.mm" is the loss where products do not go to oneDNN. With --threads 1 seconds are the processor's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from dexml import products as products_of
from dexml.losses import Positives, TopK, decoupled_softmax, tiled

Row = dict[str, Any]
TAU = 0.05
TILED = ["softmax", "bce", "decoupled-softmax", "topk", "topk-laplace"]
PLAIN = ["tiled, torch.mm/decoupled-softmax", "tiled, torch.mm/topk"]
CASES = ["products", "torch/cross-entropy", "dense/decoupled-softmax", *(f"tiled/{name}" for name in TILED), *PLAIN]


def make_batch(n_queries: int, n_labels: int, width: int) -> tuple[Tensor, Tensor, Positives]:
    """Unit vectors; a query has 1 to 9 positives and lies near their mean, as after some training."""
    g = torch.Generator().manual_seed(0)
    label = F.normalize(torch.randn((n_labels, width), generator=g), dim=1)
    counts = torch.randint(1, 10, (n_queries,), generator=g)
    indptr = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    positives = Positives.from_csr(indptr, torch.randint(n_labels, (int(indptr[-1]),), generator=g))
    near = torch.zeros(n_queries, width).index_add_(0, positives.rows, label[positives.cols])
    query = F.normalize(near + 0.05 * torch.randn((n_queries, width), generator=g), dim=1)
    return query, label, positives


def products(query: Tensor, label: Tensor, tile_cols: int) -> dict[str, float]:
    """What no tiled loss can avoid: scores, scores again, and the two gradients, into one buffer."""
    grad_query, grad_label = torch.zeros_like(query), torch.zeros_like(label)
    buffer = query.new_empty(len(query) * min(tile_cols, len(label)))
    for start in range(0, len(label), tile_cols):
        part, grad_part = label[start : start + tile_cols], grad_label[start : start + tile_cols]
        scores = buffer[: len(query) * len(part)].view(len(query), len(part))
        for _ in range(2):
            torch.mm(query, part.T, out=scores)
        grad_query.addmm_(scores, part)
        grad_part.addmm_(scores.T, query)
    return {}


def with_autograd(loss: Callable[[Tensor], Tensor], query: Tensor, label: Tensor) -> dict[str, float]:
    query, label = query.detach().requires_grad_(), label.detach().requires_grad_()
    torch.autograd.grad(loss(query @ label.T / TAU), [query, label])
    return {}


def run_case(
    case: str, query: Tensor, label: Tensor, positives: Positives, args: argparse.Namespace
) -> dict[str, float]:
    kind, _, name = case.partition("/")
    if kind == "products":
        return products(query, label, args.tile_cols)
    if kind == "torch":
        target = positives.cols[positives.indptr[:-1]]
        return with_autograd(lambda sim: F.cross_entropy(sim, target), query, label)
    if kind == "dense":
        return with_autograd(lambda sim: decoupled_softmax(sim, positives).mean, query, label)
    topk = TopK(5, 2.0, "laplace" if name == "topk-laplace" else "logistic")
    plain = patch.object(products_of, "_onednn_is_faster", lambda: False)
    with plain if kind == "tiled, torch.mm" else nullcontext():
        return tiled(
            name.removesuffix("-laplace"), query, label, positives, TAU, topk=topk,
            tile_rows=args.tile_rows, tile_cols=args.tile_cols,
        ).stats  # fmt: skip


class ResidentMemory(threading.Thread):
    """Samples this process's resident bytes; `growth` is the largest rise inside the block (Linux)."""

    def __enter__(self) -> ResidentMemory:
        self.done, self.base, self.growth = threading.Event(), self.now(), 0
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()

    @staticmethod
    def now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def run(self) -> None:
        while not self.done.wait(0.002):
            self.growth = max(self.growth, self.now() - self.base)


def measure(case: str, args: argparse.Namespace) -> Row:
    """Best seconds of `--repeat` calls and the memory they took, taking turns with the bare products: on a machine that
    others use too, only times taken side by side compare."""
    torch.set_num_threads(args.threads)
    query, label, positives = make_batch(args.queries, args.labels, args.width)
    run_case(case, query[:8].clone(), label[:64].clone(), Positives.from_csr(torch.arange(9), torch.arange(8)), args)
    seconds, bare, growth = [], [], 0
    clock = time.process_time if args.threads == 1 else time.perf_counter
    stats: dict[str, float] = {}
    for _ in range(args.repeat):
        bare.append(timed(lambda: products(query, label, args.tile_cols), clock)[0])
        with ResidentMemory() as memory:
            taken, stats = timed(lambda: run_case(case, query, label, positives, args), clock)
        seconds.append(taken)
        growth = max(growth, memory.growth)
    outputs = 4 * (query.numel() + label.numel())
    row = {"case": case, "seconds": min(seconds), "products": min(bare), "extra_mb": (growth - outputs) / 1e6}
    return row | {"of_products": min(seconds) / min(bare)} | stats


def timed(work: Callable[[], dict[str, float]], clock: Callable[[], float]) -> tuple[float, dict[str, float]]:
    start = clock()
    result = work()
    return clock() - start, result


def measure_apart(case: str, argv: list[str]) -> Row:
    """`measure` in a fresh process, whose memory is its own."""
    command = [sys.executable, __file__, *argv, "--one", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return {"case": case, "error": reason[0]}
    return json.loads(done.stdout)


def add_ratio_to_decoupled(rows: list[Row]) -> None:
    """Both counted in bare products of their own process, so that a busier minute does not show."""
    base = next((row for row in rows if row["case"] == "tiled/decoupled-softmax" and "seconds" in row), None)
    for row in rows:
        if base and "seconds" in row:
            row["of_decoupled"] = row["of_products"] / base["of_products"]


def print_table(rows: list[Row]) -> None:
    head = ["case", "seconds", "extra MB", "/ products", "/ decoupled", "passes"]
    keys = ["seconds", "extra_mb", "of_products", "of_decoupled", "passes"]
    print(f"{head[0]:36}" + "".join(f"{h:>13}" for h in head[1:]))
    for row in rows:
        cells = [f"{row[key]:13.2f}" if key in row else f"{'-':>13}" for key in keys]
        print(f"{row['case']:36}" + (f"  {row['error']}" if "error" in row else "".join(cells)))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--labels", type=int, default=131_072)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--tile_rows", type=int, default=0)
    parser.add_argument("--tile_cols", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one, args)))
        return
    rows = [measure_apart(case, argv) for case in args.only]
    add_ratio_to_decoupled(rows)
    print(f"{args.queries} queries x {args.labels} labels, {args.width} wide, float32, {args.threads} threads")
    print_table(rows)
    if args.json:
        partial = args.json.with_suffix(".tmp")
        partial.write_text(json.dumps({"settings": vars(args) | {"json": str(args.json)}, "rows": rows}, indent=1))
        partial.replace(args.json)


if __name__ == "__main__":
    main(sys.argv[1:])
