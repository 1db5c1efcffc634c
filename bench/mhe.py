"""Multi-Head Encoding: what a head learns in some minutes of a processor, and what a step costs with many labels.

    python bench/mhe.py quality configs/EURLEX57K-Titles/mhe-cascade.yaml --minutes 5 --json docs/results-mhe.json
    python bench/mhe.py quality configs/EURLEX57K-Titles/mhe-cascade.yaml --split val --lr 2e-4   # to choose settings
    python bench/mhe.py scale --labels 1300000 --heads product cascade ova --json docs/results-mhe.json
    python bench/mhe.py table docs/results-mhe.json                        # the tables of docs/mhe.md

`quality` trains any config for `--minutes` of processor time (all threads added, evaluation left out), the learning
rate falling to 0 by then, and measures it on `--split`. A row of the same data, name and split is replaced in the JSON
file. `scale` takes steps on random text vectors and labels: head and optimiser without the encoder.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.common import write_json
from dexml.config import Config, load_config

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from dexml.heads.label_codes import LabelCodes

Row = dict[str, Any]
METRICS = ("P@1", "P@3", "P@5", "PSP@5", "R@100")
SETTLING = 5  # steps before the pace is taken


def quality(files: Sequence[str], words: Sequence[str], minutes: float, split: str) -> Row:
    """Trains for the given processor minutes and measures."""
    import torch

    from dexml.training.trainer import Trainer

    class Enough(Exception):
        """The time is over."""

    class Timed(Trainer):
        paces: list[float]

        def _train(self) -> None:
            self.paces, self.began = [], time.process_time()
            try:
                super()._train()
            except Enough:
                pass

        def _step(self, parts: Any) -> None:
            before = time.process_time()
            super()._step(parts)
            self.paces.append(time.process_time() - before)
            spent = time.process_time() - self.began
            if spent >= 60 * minutes:
                raise Enough
            left = (60 * minutes - spent) / statistics.median(self.paces[-50:])
            self.stepper.total = self.state.step + max(1, round(left))

        def _finish(self) -> dict[str, Any]:
            metrics, predictions = self.session.evaluate(split)[split]
            points = self.session.points(split)
            return metrics | {"ghosts": ghosts(predictions.ids[:, :5], points.relevance, getattr(self.head, "codes", None))}

    forced = {"save": False, "save_interval": 0, "resume": "never", "num_epochs": 10_000, "eval_interval": 10_000}
    cfg = load_config(files, [*words, *(f"--{key}={value}" for key, value in forced.items())])
    trainer = Timed(cfg)
    metrics = trainer.fit()
    head = sum(p.numel() for p in [*trainer.head.shared, *trainer.head.own.values()])
    encoder = sum(p.numel() for p in trainer.session.encoder.parameters() if p.requires_grad)
    return {
        "data": cfg.dataset, "name": cfg.expname, "split": split, "minutes": minutes,
        **{name: round(float(metrics[name]), 2) for name in METRICS if name in metrics},
        "ghosts": metrics["ghosts"], "parameters": head - encoder, "steps": trainer.state.step, "bsz": cfg.bsz,
        "cpu_s_per_step": round(statistics.median(trainer.paces), 3), "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(), "settings": settings(cfg),
    }  # fmt: skip


def ghosts(ids_N5: np.ndarray, relevance: csr_matrix, codes: LabelCodes | None) -> float | None:
    """Percentage of the wrong predictions whose digits all belong to labels of the text; None without codes."""
    if codes is None:
        return None
    wrong = found = 0
    for ids, first, last in zip(ids_N5, relevance.indptr, relevance.indptr[1:], strict=False):
        own = relevance.indices[first:last]
        others = np.setdiff1d(ids[ids >= 0], own)
        digits, known = codes.encode(others), codes.encode(own)
        wrong += len(others)
        found += int(np.all([np.isin(digits[:, h], known[:, h]) for h in range(codes.n_heads)], axis=0).sum())
    return round(100 * found / max(1, wrong), 2)


def settings(cfg: Config) -> Row:
    """Keys that differ from the defaults, but for places and pace."""
    default = Config(dataset=cfg.dataset).to_dict()
    aside = {"project", "expname", "desc", "results_root", "data_root", "resume", "save", "save_interval", "num_epochs"}
    aside |= {"eval_interval", "dataset", "num_threads"}
    return {key: value for key, value in cfg.to_dict().items() if value != default[key] and key not in aside}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def keep(path: Path, kind: str, row: Row) -> None:
    """Adds a row to the file, in place of one of the same name."""
    found = json.loads(path.read_text()) if path.exists() else {"quality": [], "scale": []}
    same = ("data", "name", "split")
    found[kind] = [r for r in found[kind] if [r.get(k) for k in same] != [row.get(k) for k in same]] + [row]
    write_json(path, found)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("quality", allow_abbrev=False)
    one.add_argument("files", nargs="+")
    one.add_argument("--minutes", type=float, default=5)
    one.add_argument("--split", choices=("val", "tst"), default="tst")
    one.add_argument("--json", type=Path)
    args, words = parser.parse_known_args(argv)
    row = quality(args.files, words, args.minutes, args.split)
    print(json.dumps(row))
    if args.json:
        keep(args.json, args.command, row)


if __name__ == "__main__":
    main(sys.argv[1:])
