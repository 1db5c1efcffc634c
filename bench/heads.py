"""What a step of LightXML costs beside a full one-vs-all step, heads and optimiser alone, without the encoder.

    python bench/heads.py                                                  # 131,072 labels, some 5 GB
    python bench/heads.py --labels 16384 --steps 20                        # a small machine
    python bench/heads.py --json out.json --set lxml_topb=32 lxml_dim=300  # another shape of the grouped head

Text vectors and labels are random. The heads take turns, a step each, on the same batches; a step is the loss, its
gradient and the update by AdamW. Ratios are medians within a turn, of processor time as of wall time.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.common import positive, write_json
from dexml.config import Config, load_config
from dexml.machine import cores

if TYPE_CHECKING:
    from dexml.heads.features import PreparedFeatures
    from dexml.heads.lightxml import GroupedLightXML
    from dexml.heads.lightxml_plain import PlainLightXML

MODES = ("grouped", "plain")
LAYERS = 5


class HeadAlone:
    """A head on vectors that are given, and its optimiser."""

    def __init__(self, mode: str, labels: int, width: int, words: Sequence[str]) -> None:
        import torch

        from dexml.distributed import World
        from dexml.heads.lightxml import GroupedLightXML
        from dexml.heads.lightxml_plain import PlainLightXML

        own = words if mode == "grouped" else []
        keys = ["--dataset", "Random", "--net", "lightxml", "--lxml_mode", mode, "--doc_dropout", "0.5"]
        self.cfg: Config = load_config([], [*keys, *own])
        encoder = _vectors(LAYERS * width)
        self.head: GroupedLightXML | PlainLightXML
        if mode == "grouped":
            self.head = GroupedLightXML(self.cfg, encoder, labels, None, World())  # type: ignore[arg-type]
            self.head._make(_clusters(labels, self.cfg.lxml_cluster_size))
        else:
            self.head = PlainLightXML(self.cfg, encoder, labels, None, World())  # type: ignore[arg-type]
            self.head._make()
        self.optimizer = torch.optim.AdamW(self.head.net.parameters(), lr=1e-3, fused=True)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.head.net.parameters())

    def step(self, z: Any, ready: PreparedFeatures) -> tuple[float, float]:
        """Seconds of the processor and of the clock."""
        busy, began = time.process_time(), time.perf_counter()
        self.head.loss(z.detach().requires_grad_(), ready).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.process_time() - busy, time.perf_counter() - began


def _vectors(width: int) -> Any:
    """Stands where the encoder does."""
    from torch import nn

    encoder = nn.Linear(1, 1)
    encoder.width = width  # type: ignore[assignment]
    return encoder


def _clusters(labels: int, size: int) -> Any:
    from dexml.heads.treebuild import from_levels

    count = 2 ** max(0, (-(-labels // size) - 1).bit_length())
    return from_levels([np.arange(labels) * count // labels])


def batches(steps: int, rows: int, labels: int, width: int) -> list[tuple[Any, Any]]:
    """Random vectors, and one to nine labels each, the first labels more often."""
    import torch

    from dexml.data.batching import Batch
    from dexml.heads.features import Positives, PreparedFeatures

    rng = np.random.default_rng(0)
    made = []
    for step in range(steps):
        own = [np.unique((labels * rng.random(int(rng.integers(1, 10))) ** 2).astype(np.int64)) for _ in range(rows)]
        positives = Positives(np.cumsum([0, *map(len, own)]), np.concatenate(own))
        keys = rng.integers(0, 2**31, rows).astype(np.int32)
        points = np.arange(rows)
        ready = PreparedFeatures(Batch(points, 0, step), None, points, positives, keys)  # type: ignore[arg-type]
        made.append((torch.randn(rows, LAYERS * width), ready))
    return made


def measure(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    words = [word for pair in args.set for word in (f"--{pair.partition('=')[0]}", pair.partition("=")[2])]
    heads = {mode: HeadAlone(mode, args.labels, args.width, words) for mode in MODES}
    seconds: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    for z, ready in batches(args.steps + 1, args.bsz, args.labels, args.width):
        for mode, head in heads.items():
            seconds[mode].append(head.step(z, ready))
    taken = {mode: np.array(times[1:]) for mode, times in seconds.items()}  # the first step warms up
    ratio = taken["plain"] / taken["grouped"]
    return {
        "labels": args.labels, "batch": args.bsz, "width": LAYERS * args.width, "threads": args.threads,
        **{f"{mode} parameters": head.parameters for mode, head in heads.items()},
        **{f"{mode} processor s": round(statistics.median(times[:, 0]), 4) for mode, times in taken.items()},
        **{f"{mode} wall s": round(statistics.median(times[:, 1]), 4) for mode, times in taken.items()},
        "plain / grouped, processor": round(float(np.median(ratio[:, 0])), 2),
        "plain / grouped, wall": round(float(np.median(ratio[:, 1])), 2),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=positive, default=131_072)
    parser.add_argument("--bsz", type=positive, default=64)
    parser.add_argument("--width", type=positive, default=384, help="of one layer of the text vector, which has five")
    parser.add_argument("--steps", type=positive, default=5)
    parser.add_argument("--threads", type=positive, default=cores())
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the grouped head")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    found = measure(args)
    for name, value in found.items():
        print(f"{name:28} {value:,}")
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
