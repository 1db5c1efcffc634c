"""The command line of `dexml eval`. Light: the libraries load when the words are known to be right."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dexml.config import ConfigError, parse_command_line

SPLITS = ("trn", "val", "tst", "dev")
USAGE = f"dexml eval {'|'.join(SPLITS)} RUN|BUNDLE|CONFIG.yaml"


def eval_command(words: Sequence[str]) -> None:
    """Evaluates and prints the table; ConfigError for words that make no sense."""
    parser = _parser()
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return
    targets, options = parse_command_line(words[1:])
    if not words or words[0] not in SPLITS or not targets:
        raise ConfigError(f"usage: {USAGE}")
    asked, overrides = parser.parse_known_args(options)
    from dexml.training.target import Target

    target = Target.of(targets, overrides)
    if asked.data is not None:
        target = target.on(asked.data, words[0])
    from dexml.distributed import leave
    from dexml.training.evaluate import Evaluation, evaluate

    try:
        rows = evaluate(Evaluation(target, words[0], asked.index, asked.out, asked.predictions, asked.full))
    finally:
        leave()
    if rows is not None:
        _show(f"{target.cfg.expname} ({words[0]})", rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dexml eval",
        usage=f"{USAGE} [options] [--key value ...]",
        description="Evaluates an exported model on a split: the folder of a run, a bundle, or the config of a run.",
        epilog="Any key of the config can be set, such as --predict_mode mix (labels, knn and mix side by side), "
        "--eval_topk 200 or --num_threads 2.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="another data folder: its points, labels and truth")
    parser.add_argument("--index", default="", metavar="KIND", help="search with this kind of label index as well")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where metrics and scores go (default: the run)")
    parser.add_argument("--full", action="store_true", help="also RP, PSnDCG, Hit, Coverage, F1 and pyxclib's lines")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write the predictions as JSON lines")
    return parser


def _show(name: str, rows: dict[str, dict[str, float]]) -> None:
    from dexml.evaluation.table import FULL_COLUMNS, metrics_table, xclib_text
    from dexml.training.rundir import named

    print(metrics_table(named(name, rows)))
    more = [column for column in FULL_COLUMNS if any(column in metrics for metrics in rows.values())]
    if {"Hit@1"} & set(more):
        print("\n" + metrics_table(named(name, rows), more))
        for way, metrics in named(name, rows).items():
            print(f"\n{way}, P, nDCG, PSP and PSnDCG at 1 to 5:\n{xclib_text(metrics)}")
    for way, metrics in rows.items():
        recalls = {key.partition("@")[2]: value for key, value in metrics.items() if key.startswith("recall_of_exact@")}
        if recalls:
            shares = " / ".join(f"{value:.2f}" for value in recalls.values())
            print(f"\n{way} finds {shares} % of the best {' / '.join(recalls)} labels of exact search")
