"""What nets learn in the same processor minutes, as a table.

    python bench/quality.py configs/Iconclass/lightxml.yaml --minutes 5 --json docs/results-heads.json
    python bench/quality.py configs/Iconclass/lightxml.yaml --name "LightXML, gate" --minutes 5 --lxml_se gate
    python bench/quality.py configs/Iconclass/lightxml.yaml --split val --lr 2e-4       # to choose settings
    python bench/quality.py --table docs/results-heads.json

Any config is trained for `--minutes` of processor time, all threads added up, what comes before the first step included
(trees, label weights that learn first) and evaluation left out; the learning rate falls to 0 by then. It is measured on
`--split`. A row of the same data, name and split is replaced in the JSON file.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import contextlib
import json
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

from bench.common import write_json
from dexml.config import Config, load_config

Row = dict[str, Any]
METRICS = ("P@1", "P@3", "P@5", "PSP@5", "R@100")
COLUMNS = (*METRICS, "minutes", "parameters", "s/step", "peak MB")
RECENT = 50  # steps whose median is the pace


def quality(files: Sequence[str], words: Sequence[str], minutes: float, split: str, name: str = "") -> Row:
    """Trains for the given processor minutes and measures."""
    import torch

    from dexml.training.trainer import Trainer

    class Enough(Exception):
        """The time is over."""

    class Timed(Trainer):
        def _restore(self) -> None:
            self.paces: list[float] = []
            self.began = time.process_time()
            super()._restore()

        def _train(self) -> None:
            with contextlib.suppress(Enough):
                super()._train()

        def _step(self, parts: Any) -> None:
            before = time.process_time()
            super()._step(parts)
            self.paces.append(time.process_time() - before)
            left = 60 * minutes - (time.process_time() - self.began)
            if left <= 0:
                raise Enough
            self.stepper.total = self.state.step + max(1, round(left / statistics.median(self.paces[-RECENT:])))

        def _finish(self) -> dict[str, Any]:
            return self.session.evaluate(split)[split][0]

    forced = {"save": False, "save_interval": 0, "resume": "never", "num_epochs": 10_000, "eval_interval": 10_000}
    cfg = load_config(files, [*words, *(f"--{key}={value}" for key, value in forced.items())])
    trainer = Timed(cfg)
    metrics = trainer.fit()
    both = sum(p.numel() for p in [*trainer.head.shared, *trainer.head.own.values()])
    encoder = sum(p.numel() for p in trainer.session.encoder.parameters() if p.requires_grad)
    return {
        "data": cfg.dataset, "name": name or cfg.expname, "split": split, "minutes": minutes,
        **{metric: round(float(metrics[metric]), 2) for metric in METRICS if metric in metrics},
        "parameters": both - encoder, "steps": trainer.state.step, "s/step": round(statistics.median(trainer.paces), 3),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "threads": torch.get_num_threads(), "settings": settings(cfg),
    }  # fmt: skip


def settings(cfg: Config) -> Row:
    """Keys that differ from the defaults, but for places and pace."""
    default = Config(dataset=cfg.dataset).to_dict()
    aside = {"project", "expname", "desc", "results_root", "data_root", "resume", "save", "save_interval", "num_epochs"}
    aside |= {"eval_interval", "dataset", "num_threads", "profile"}
    return {key: value for key, value in cfg.to_dict().items() if value != default[key] and key not in aside}


def add_row(path: Path, row: Row) -> None:
    """Puts a row into the file, in the place of one of the same data, name and split."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    same = [all(old[key] == row[key] for key in ("data", "name", "split")) for old in rows]
    write_json(path, [row if found else old for old, found in zip(rows, same, strict=True)] + [row] * (not any(same)))  # type: ignore[arg-type]


def table(rows: Sequence[Row]) -> str:
    """Markdown, a table for each data set and split."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["data"], row["split"]), []).append(row)
    texts = []
    for (data, split), some in parts.items():
        lines = [f"| {data}, {split} | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
        lines += [f"| {row['name']} | {' | '.join(_cell(row.get(column)) for column in COLUMNS)} |" for row in some]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value:,}"
    return f"{value:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="quality.py", description="What a net learns in some processor minutes.")
    parser.add_argument("files", nargs="*", help="YAML files of the config; further words are --key value")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--split", default="tst", choices=["val", "tst"])
    parser.add_argument("--name", default="", help="of the row (default: expname)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of a JSON file")
    args, words = parser.parse_known_args(argv)
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))))
        return
    if not args.files:
        parser.error("name the YAML files of a config")
    row = quality(args.files, words, args.minutes, args.split, args.name)
    print(table([row]))
    if args.json:
        add_row(args.json, row)


if __name__ == "__main__":
    main()
