"""Multi-Head Encoding: what a step of a head costs with many labels.

    python bench/mhe.py cascade --labels 1300000 --json docs/results-mhe.json      # product, cascade, ova
    python bench/mhe.py --table docs/results-mhe.json

Steps on random text vectors and labels: head and optimiser without the encoder, in seconds of the processor. A row of
the same name and number of labels is replaced in the JSON file. What the heads learn: bench/quality.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.quality import Row, add_row
from dexml.config import Config
from dexml.machine import peak_mb

COLUMNS = ("name", "labels", "parameters", "loss_s", "optimiser_s", "peak_mb")


def scale(kind: str, n_labels: int, width: int, dim: int, bsz: int, steps: int) -> Row:
    """Steps of a head on random texts of five random labels."""
    step, parameters = (ova if kind == "ova" else multi_head)(kind, n_labels, width, dim, bsz)
    rng, seconds = np.random.default_rng(0), []
    for _ in range(steps + 1):
        labels = rng.integers(0, n_labels, (bsz, 5))
        before = time.process_time()
        loss_done = step(rng.standard_normal((bsz, width), np.float32), labels)
        seconds.append((loss_done - before, time.process_time() - loss_done))
    loss, update = (statistics.median(part) for part in zip(*seconds[1:], strict=True))
    return {
        "data": "synthetic", "name": kind, "split": n_labels, "labels": n_labels,
        "width": width, "dim": dim, "bsz": bsz,
        "parameters": parameters, "loss_s": round(loss, 4), "optimiser_s": round(update, 4),
        "peak_mb": round(peak_mb()),
    }  # fmt: skip


Step = Callable[[np.ndarray, np.ndarray], float]


def multi_head(kind: str, n_labels: int, width: int, dim: int, bsz: int) -> tuple[Step, int]:
    """A step on text vectors and labels, giving the time when its gradient was there; the number of parameters."""
    import torch
    from scipy.sparse import csr_matrix

    from dexml.data.batching import Batch
    from dexml.data.dataset import Split
    from dexml.distributed import World
    from dexml.heads.features import Positives, PreparedFeatures
    from dexml.heads.label_codes import LabelCodes
    from dexml.heads.make import MHE
    from dexml.heads.mhe_codes import chosen_lengths
    from dexml.training.optim import make_optimizer

    class NoEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.one = width, torch.nn.Parameter(torch.zeros(1))

    keys = {"mhe_open": 32, "mhe_dim": dim} if kind == "cascade" else {}
    cfg = Config(dataset="synthetic", net="mhe", mhe_kind=kind, **keys)
    head = MHE[kind](cfg, NoEncoder(), n_labels, lambda part: None, World())  # type: ignore[arg-type, return-value]
    head.codes = LabelCodes(chosen_lengths(cfg, n_labels, width), np.arange(n_labels))
    head._seeded(lambda: head._build("bce"))
    optimizer = make_optimizer(cfg, [{"params": list(head.net.parameters()), "lr": 1e-3}])
    keys_B = np.arange(bsz, dtype=np.int32)

    def step(x: np.ndarray, labels: np.ndarray) -> float:
        cells = (np.ones(labels.size, np.float32), (np.repeat(np.arange(bsz), labels.shape[1]), labels.ravel()))
        split = Split("trn", [], csr_matrix(cells, (bsz, n_labels)), None)  # type: ignore[arg-type]
        own = Positives.of(split, np.arange(bsz))
        ready = PreparedFeatures(Batch(np.arange(bsz), 0, 0), None, np.arange(bsz), own, keys_B)  # type: ignore[arg-type]
        head.loss(torch.from_numpy(x).requires_grad_(), ready).backward()
        done = time.process_time()
        optimizer.step()
        optimizer.zero_grad()
        return done

    return step, sum(p.numel() for p in head.net.parameters())


def ova(kind: str, n_labels: int, width: int, dim: int, bsz: int) -> tuple[Step, int]:
    """The same for a vector of the text's width for every label, against all of which every text is compared."""
    import torch

    from dexml.losses import Positives, tiled

    table = torch.nn.Parameter(torch.zeros(n_labels, width))
    optimizer = torch.optim.AdamW([table], 1e-3, fused=True)

    def step(x: np.ndarray, labels: np.ndarray) -> float:
        labels = np.sort(labels, axis=1)
        positives = Positives.from_csr(np.arange(bsz + 1) * labels.shape[1], labels.ravel())
        table.grad = tiled("bce", torch.from_numpy(x), table, positives, 1.0).grad_label
        done = time.process_time()
        optimizer.step()
        return done

    return step, table.numel()


def table(rows: Sequence[Row]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    lines += [" | ".join(cell(row.get(name)) for name in COLUMNS) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="mhe.py", description="What a step of a head costs with many labels.")
    parser.add_argument("head", nargs="?", choices=("product", "cascade", "ova"))
    for name, value in (("labels", 1_300_000), ("width", 384), ("dim", 100), ("bsz", 64), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of a JSON file")
    args = parser.parse_args(argv)
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))))
        return
    if args.head is None:
        parser.error("name a head: product, cascade or ova")
    found = scale(args.head, args.labels, args.width, args.dim, args.bsz, args.steps)
    print(table([found]))
    if args.json:
        add_row(args.json, found)


if __name__ == "__main__":
    main()
