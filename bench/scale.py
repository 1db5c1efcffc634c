"""Seconds a step against the number of labels, with a label bank: synthetic labels, a small encoder.

    python bench/scale.py                                        # 130,000, 1,300,000 and 10,000,000 labels
    python bench/scale.py --labels 130000 --steps 3 --bsz 32     # a minute

Label texts are random ids in a token file that is memory-mapped as those of a data set are. The bank begins with random
rows: what filling it takes is told from a sample. Each count runs in a process of its own, whose peak memory is its.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.sparse import csr_matrix

from dexml.machine import cores, peak_mb

if TYPE_CHECKING:
    from dexml.data.store import TokenStore
    from dexml.encoders.text import TextEncoder
    from dexml.heads.bank import BankEncoder

VOCABULARY, BLOCK, SAMPLE = 8192, 1 << 18, 20_000
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[130_000, 1_300_000, 10_000_000])
    parser.add_argument("--steps", type=int, default=3, help="steps timed, after one that is not")
    parser.add_argument("--bsz", type=int, default=128)
    parser.add_argument("--width", type=int, default=64, help="of the encoder and its embeddings")
    parser.add_argument("--fresh", type=int, default=4096, help="labels encoded a step")
    parser.add_argument("--mined", type=float, default=0.5)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16", help="of the bank")
    parser.add_argument("--correction", choices=("none", "linear", "kernel"), default="linear")
    parser.add_argument(
        "--threads", type=int, default=cores(), help="1 where other work runs: threads wait for another"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(measure(args, args.labels[0])))
        return
    rows = [in_process(sys.argv[1:] if argv is None else list(argv), n) for n in sorted(args.labels)]
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def in_process(argv: list[str], labels: int) -> Row:
    command = [sys.executable, "-m", "bench.scale", *argv, "--child", "--labels", str(labels)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return cast(Row, json.loads(done.stdout.splitlines()[-1]))


def measure(args: argparse.Namespace, labels: int) -> Row:
    """Median seconds of a step, of its phases, and the most memory held."""
    from dexml.data.batching import Batch
    from dexml.stopwatch import Stopwatch

    with tempfile.TemporaryDirectory() as folder:
        head = make_head(args, labels, Path(folder))
        optimizer = __import__("torch").optim.AdamW(head.shared, lr=1e-4, fused=True)
        fill = filling(head, labels)
        seconds, busy, watch = [], [], Stopwatch()
        for step in range(args.steps + 1):
            watch.on = step > 0
            began, worked = time.perf_counter(), time.process_time()
            head.accumulate(head.prepare(Batch(np.arange(args.bsz) + step * args.bsz, 0, step)), watch=watch)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - worked)
    row: Row = {"labels": labels, "seconds": float(np.median(seconds[1:])), "cpu": float(np.median(busy[1:]))}
    row |= {"peak_mb": peak_mb(), "fill_minutes": fill}
    row |= {"bsz": args.bsz, "width": args.width, "fresh": head.bank.budget, "threads": args.threads}
    row["phases"] = {name: spent / args.steps for name, spent in watch.seconds.items() if spent}
    return row


def make_head(args: argparse.Namespace, labels: int, folder: Path) -> BankEncoder:
    import torch

    from dexml.config import Config
    from dexml.data.dataset import Split
    from dexml.distributed import World
    from dexml.heads.bank import BankEncoder

    torch.set_num_threads(args.threads)
    points = args.bsz * (args.steps + 1)
    tokens = {"trn": token_file(folder / "trn", points, 12), "labels": token_file(folder / "labels", labels, 6)}
    cfg = Config(
        label_side="bank", bank_budget=min(1.0, args.fresh / labels), bank_mined=args.mined, bank_dtype=args.dtype,
        bank_correction=args.correction, bsz=args.bsz, loss_sample=False, tf_max_len=16,
    )  # fmt: skip
    head = BankEncoder(cfg, small_encoder(args.width), labels, tokens.__getitem__, World())
    rng = np.random.default_rng(0)
    cells = (np.ones(3 * points, np.float32), (np.repeat(np.arange(points), 3), rng.integers(0, labels, 3 * points)))
    relevance = csr_matrix(cells, shape=(points, labels))
    head.learn_from(cast(Split, SimpleNamespace(relevance=relevance, filters=None)))
    for rows in head.bank.vectors_SD.split(BLOCK):
        rows.copy_(torch.nn.functional.normalize(torch.randn(rows.shape), dim=1))
    return head


def filling(head: BankEncoder, labels: int) -> float:
    """CPU minutes that embedding all labels would take, from a sample of them."""
    from dexml.encoders.encode import embed

    tokens, rows = head.label_tokens, np.random.default_rng(0).integers(0, labels, min(SAMPLE, labels))
    began = time.process_time()
    embed(head.encoder, tokens.gather, rows, tokens.pad_id)
    return (time.process_time() - began) / len(rows) * labels / 60


def small_encoder(width: int) -> TextEncoder:
    import torch
    from transformers import BertConfig, BertModel

    from dexml.encoders.text import TextEncoder

    torch.manual_seed(0)
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=32, hidden_dropout_prob=0.0,
                        attention_probs_dropout_prob=0.0, **shape)  # fmt: skip
    return TextEncoder(BertModel(config, add_pooling_layer=False), "mean").train()


def token_file(path: Path, rows: int, longest: int) -> TokenStore:
    """Random texts of 3 to `longest` tokens."""
    from dexml.data.partial import PartialTokens
    from dexml.data.store import TokenInfo, TokenStore, write_store

    rng, info = np.random.default_rng(rows), TokenInfo("", "", longest, 0, VOCABULARY)
    with PartialTokens.open(path, info) as partial:
        for begin in range(0, rows, BLOCK):
            lengths = rng.integers(3, longest + 1, min(BLOCK, rows - begin))
            partial.append(rng.integers(1, VOCABULARY, int(lengths.sum())), lengths)
        write_store(path, partial)
    return TokenStore.open(path)


def show(rows: list[Row]) -> None:
    print(f"{'labels':>12} {'s a step':>9} {'CPU s':>9} {'peak MB':>9} {'fill min':>9}  phases")
    for row in rows:
        phases = sorted(row["phases"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {100 * spent / sum(row['phases'].values()):.0f} %" for name, spent in phases[:4])
        cells = [
            f"{row['labels']:>12,}",
            *(f"{row[key]:>9,.2f}" for key in ("seconds", "cpu", "peak_mb", "fill_minutes")),
        ]
        print(*cells, f" {shares}")
    if len(rows) > 1:
        slope, base = np.polyfit([row["labels"] / 1e6 for row in rows], [row["cpu"] for row in rows], 1)
        print(f"about {base:.2f} and {slope:.2f} CPU seconds a million labels")


if __name__ == "__main__":
    main()
