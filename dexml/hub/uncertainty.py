"""The command line of `dexml uncertainty`. Light: the libraries load when the words are known to be right."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPLITS = ("tst", "dev", "trn")


def uncertainty_command(words: Sequence[str]) -> None:
    """Measures an ensemble and prints the tables."""
    args = _parse(words)
    from dexml.distributed import leave
    from dexml.hub.ensemble_uncertainty import Question, measure

    try:
        found = measure(Question(**vars(args)))
    finally:
        leave()
    if found is not None:
        print(_told(found))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexml uncertainty",
        description="How unsure an ensemble is of every label and text, what it lacks in data and what in knowledge, "
        "and whether that points at wrong labels and at texts of another kind.",
    )
    models = "runs, bundles or checkpoints of runs, of the same labels"
    parser.add_argument("members", nargs="+", type=Path, metavar="RUN", help=models)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="data folder (default: that of the first run)")
    parser.add_argument("--split", choices=SPLITS, default="tst", help="whose points are judged (default: tst)")
    parser.add_argument("--ood", type=Path, metavar="FILE", help="texts of another kind: one a line, or a data folder")
    parser.add_argument("--top-k", type=int, default=100, help="labels that each member looks for (default: 100)")
    parser.add_argument(
        "--mode", choices=("complete", "zero"), default="complete",
        help="a label that a member has not found: ask it for the probability, or take 0 (default: complete)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=int, default=0, metavar="N", help="only so many texts of each kind, evenly taken"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: uncertainty/ in the first run")
    args = parser.parse_args(words)
    if args.top_k < 1 or args.most < 0:
        parser.error(f"--top-k is {args.top_k} and --most {args.most}: expected 1 or more, and 0 or more")
    return args


def _told(found: dict[str, Any]) -> str:
    lines = [f"{found['points']:,} texts of {found['split']}, {len(found['members'])} members ({found['mode']})", ""]
    if "precision" in found:
        lines += [*_precision(found["precision"]), ""]
        for k, part in found["wrong labels"].items():
            lines += _scores(f"wrong among the first {k} ({100 * part['wrong']:.1f} % are)", part["scores"])
    if "other texts" in found:
        lines += _scores(f"{found['others']:,} other texts", found["other texts"])
    means = " ".join(f"{name} {value:.4g}" for name, value in found["means"].items())
    return "\n".join([*lines, f"means: {means}", f"written to {found['out']}"])


def _precision(found: dict[str, Any]) -> list[str]:
    rows = {f"member {i}": row for i, row in enumerate(found["members"], start=1)} | {"ensemble": found["ensemble"]}
    head = f"{'':24}" + "".join(f"{name:>9}" for name in found["ensemble"])
    return [head, *(f"{name:24}" + "".join(f"{value:9.2f}" for value in row.values()) for name, row in rows.items())]


def _scores(title: str, scores: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"{title:44}{'AUROC':>9}{'AP':>9}"]
    for name, row in scores.items():
        cells = f"{row['auroc']:9.4f}{row['ap']:9.4f}" if row else f"{'-':>9}{'-':>9}"
        lines.append(f"  {name:42}{cells}")
    return [*lines, ""]
