"""Seconds and peak memory of a training step against all labels, ours and a peer's, and whether the gradients agree.

    python bench/step.py --data Datasets/EURLEX57K-Titles                  # ours alone, fp32 and bf16
    python bench/step.py --data Datasets/EURLEX57K-Titles --peer ../DEXML --peer-python ../DEXML/.venv/bin/python
    python bench/step.py --config configs/Iconclass/dist-de-all_decoupled-softmax.yaml --json out.json
    python bench/step.py --bsz 32 --repeats 1 --gc_bsz 256                 # smaller; --key value changes the config

A step goes from point ids to the whole gradient: texts and positives collected, encoded, loss, backward. The optimiser,
the same arithmetic on both sides, is left out. Each side is one process and they take turns, a step each, on the same
batches; a first round warms up and gives the gradients. Dropout is 0, so that gradients can be compared. All sides stay
loaded: where memory is short, measure --precisions fp32 and bf16 in runs of their own. Our peak depends on the free
memory unless --memory_budget GB is given.

The peer never counts the last label as a positive: both sides leave out its positives.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from bench.common import (
    BenchError,
    Side,
    add_arguments,
    bench_config,
    check_comparable,
    check_peer,
    compare_gradients,
    export,
    peer_side,
    positive,
    ratios,
    spread,
    write_json,
)
from bench.peer.dexml_turns import Handlers, serve
from dexml.config import Config, ConfigError, load_config

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from dexml.data.batching import Batch
    from dexml.data.dataset import Split

PRECISIONS = ("fp32", "bf16")
Answers = dict[str, list[dict[str, Any]]]


class OurStep:
    """dexml's step as a side: `Head.accumulate` on batches of points that have positives."""

    def __init__(self, cfg: Config, steps: int) -> None:
        from dexml.distributed import World
        from dexml.session import Session

        session = Session(cfg, World())
        self.max_len, self.encoder = cfg.tf_max_len, session.encoder.train()
        self.split = without_last_label(session.dataset.trn)
        self.queries, self.labels = session.tokens("trn"), session.tokens("labels")
        self.head = session.head
        self.head.learn_from(self.split)
        self.batches = list(islice(full_batches(self.split.relevance, cfg), steps))

    @property
    def handlers(self) -> Handlers:
        return {"ready": self.ready, "export": self.export, "step": self.step}

    def ready(self) -> dict[str, Any]:
        import torch

        return {"labels": len(self.labels), "torch": torch.__version__}

    def export(self, folder: str) -> dict[str, Any]:
        points = (batch.points for batch in self.batches)
        export(Path(folder), self.queries, self.labels, self.split.relevance, points, self.max_len)
        return {}

    def step(self, batch: int, gradient: str = "") -> dict[str, Any]:
        """Seconds and loss of one gradient; `gradient` names the file (.npz) to keep it in."""
        began = time.perf_counter()
        stats = self.head.accumulate(self.head.prepare(self.batches[batch]))
        seconds = time.perf_counter() - began
        if gradient:
            self._save(gradient)
        self.encoder.zero_grad()
        return {"seconds": seconds, "loss": stats.loss}

    def _save(self, path: str) -> None:
        import numpy as np

        gradient: dict[str, Any] = {n: p.grad.numpy() for n, p in self.encoder.named_parameters() if p.grad is not None}
        np.savez(path, **gradient)


def without_last_label(split: Split) -> Split:
    """The split with no positives of the last label, which the peer cannot see, and no filters, which it ignores."""
    from dataclasses import replace

    from scipy.sparse import csr_matrix

    cells = split.relevance.tocoo()
    kept = cells.col < cells.shape[1] - 1
    parts = cells.data[kept], (cells.row[kept], cells.col[kept])
    return replace(split, relevance=csr_matrix(parts, shape=cells.shape), filters=None)


def full_batches(relevance: csr_matrix, cfg: Config) -> Iterator[Batch]:
    """Batches of `bsz` points that have positives, epoch after epoch; all those points where there are fewer."""
    import numpy as np

    from dexml.data.batching import epoch_batches

    rows = np.flatnonzero(np.diff(relevance.indptr))
    size = min(cfg.bsz, len(rows))
    for epoch in count():
        yield from (batch for batch in epoch_batches(rows, size, cfg.seed, epoch) if len(batch.points) == size)


def take_turns(sides: dict[str, Side], repeats: int, folder: Path) -> Answers:
    """The answers of each side, the warm-up first; its gradient is in `folder`/<side>.npz."""
    answers: Answers = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            gradient = "" if turn else str(folder / f"{name}.npz")
            answers[name].append(side.ask("step", batch=turn, gradient=gradient))
            done = f"{f'step {turn}' if turn else 'warm-up'}: {name} {answers[name][-1]['seconds']:.2f} s"
            print(done, file=sys.stderr)
    return answers


def measure(args: argparse.Namespace, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Starts the sides, runs the rounds and returns what goes to the table and to --json."""
    cfgs = {name: step_config(args, overrides, name) for name in args.precisions}
    first = cfgs[args.precisions[0]]
    if args.peer:
        check_peer(args)
        check_comparable(first)
        if first.loss_sample:
            raise BenchError("loss_sample draws other positives on each side: give --loss_sample False")
    with ExitStack() as stack:
        sides = {name: stack.enter_context(our_side(args, name, cfg, folder)) for name, cfg in cfgs.items()}
        facts = {name: side.ask("ready") for name, side in sides.items()}[args.precisions[0]]
        if args.peer:
            next(iter(sides.values())).ask("export", folder=str(folder))
            sides["peer"] = stack.enter_context(peer_side(args, first, folder))
            sides["peer"].ask("ready")
        answers = take_turns(sides, args.repeats, folder)
    facts |= {"data": str(first.data_dir), "model": first.tf, "bsz": first.bsz, "max_len": first.tf_max_len}
    facts |= {"threads": args.threads, "repeats": args.repeats, "config": first.to_dict()}
    return figures(answers, folder) | {"settings": facts}


def step_config(args: argparse.Namespace, overrides: list[str], precision: str) -> Config:
    length = {"tf_max_len": args.max_len} if args.max_len else {}
    forced = {"bsz": args.bsz, "tf_dropout": 0, "dropout": 0, "num_val_points": 0, "precision": precision, **length}
    return bench_config(args, args.config, [*overrides, "--select_on_test", "False", "--amp_encode", "True"], **forced)


def our_side(args: argparse.Namespace, name: str, cfg: Config, folder: Path) -> Side:
    file = folder / f"{name}.yaml"
    cfg.dump(file)
    command: list[str | Path] = [sys.executable, __file__, "--serve", file, "--repeats", str(args.repeats)]
    return Side(f"ours {name}", command, folder, args.threads)


def figures(answers: Answers, folder: Path) -> dict[str, Any]:
    """{"ours", "peer", "ratio"}, each by precision; without a peer the last two are None."""

    def side(name: str) -> dict[str, Any]:
        warm, *counted = answers[name]
        seconds = spread([answer["seconds"] for answer in counted])
        return {"seconds": seconds, "peak_mb": counted[-1]["peak_mb"], "loss": warm["loss"]}

    ours = {name: side(name) for name in answers if name != "peer"}
    if "peer" not in answers:
        return {"ours": ours, "peer": None, "ratio": None}
    peer = side("peer")
    ratio = {
        name: {
            "speed": ratios(peer["seconds"]["all"], own["seconds"]["all"]),
            "memory": own["peak_mb"] / peer["peak_mb"],
            "gradient": compare_gradients(folder / f"{name}.npz", folder / "peer.npz"),
        }
        for name, own in ours.items()
    }
    return {"ours": ours, "peer": {"fp32": peer}, "ratio": ratio}


def print_table(found: dict[str, Any]) -> None:
    s = found["settings"]
    print(f"{s['data']}: {s['labels']} labels, batch {s['bsz']}, {s['max_len']} tokens, {s['threads']} threads")
    heads = ["s/step", "(min", "max)", "peak MB", "x faster", "(min", "max)", "memory", "cosine"]
    widths = [9, 8, 8, 9, 9, 7, 7, 8, 11]
    print(f"{'side':10}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for owner in ("peer", "ours"):
        for name, side in (found[owner] or {}).items():
            t = side["seconds"]
            cells = [f"{t[key]:.2f}" for key in ("median", "min", "max")] + [f"{side['peak_mb']:.0f}"]
            if owner == "ours" and found["ratio"]:
                r = found["ratio"][name]
                cells += [f"{r['speed'][key]:.2f}" for key in ("median", "min", "max")]
                cells += [f"{r['memory']:.3f}", f"{r['gradient']['cosine']:.7f}"]
            print(f"{owner} {name:5}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False)))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_arguments(parser)
    parser.add_argument("--bsz", type=positive, default=256)
    parser.add_argument("--max-len", type=int, default=0, help="tokens kept of a text (default: that of the config)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of our side")
    args, overrides = parser.parse_known_args(argv)
    if args.serve:
        serve(lambda: OurStep(load_config([args.serve]), args.repeats + 1).handlers)
        return
    try:
        with tempfile.TemporaryDirectory(prefix="dexml-bench-") as folder:
            found = measure(args, overrides, Path(folder))
    except (BenchError, ConfigError) as error:
        sys.exit(f"error: {error}")
    print_table(found)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main(sys.argv[1:])
