"""`dexml ensemble`: the stored predictions of several runs joined, measured beside each alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexml.config import Config, ConfigError, load_config

SPLITS = ("tst", "val")


def ensemble_command(words: Sequence[str]) -> None:
    """Prints the table, and writes the ensemble's metrics and scores where asked."""
    asked = _parser().parse_args(words)
    from dexml.training.rundir import RunFolder

    rows, scores = ensemble(asked.runs, asked.split)
    from dexml.evaluation.table import metrics_table

    print(metrics_table(rows))
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(_config(asked.runs[0]), asked.out)
        folder.write_table(asked.split, {"ensemble": rows["ensemble"]})
        folder.write_scores(asked.split, scores)


def ensemble(runs: Sequence[Path], split: str) -> tuple[dict[str, dict[str, Any]], Any]:
    """Metrics of each run and of `ensemble`, and the ensemble's scores [N, L].

    Raises:
        ConfigError: fewer than two runs, no predictions of this split, runs of other data, or scores that are not
            probabilities.
    """
    if len(runs) < 2:
        raise ConfigError("an ensemble has two runs at least")
    configs = [_config(run) for run in runs]
    for run, cfg in zip(runs, configs, strict=True):
        if cfg.data_dir.resolve() != configs[0].data_dir.resolve():
            raise ConfigError(f"{run} is of {cfg.data_dir}, {runs[0]} of {configs[0].data_dir}: they must be of one")
    from dexml.distributed import World
    from dexml.evaluation.ensemble import sum_scores
    from dexml.session import Session

    session = Session(configs[0], World())
    points = session.points(split)
    members = [_scores(run, split, points.relevance.shape) for run in runs]
    found = [sum_scores([member], configs[0].eval_topk) for member in members]
    joined = sum_scores(members, configs[0].eval_topk)
    names = [cfg.expname for cfg in configs]
    names = names if len(set(names)) == len(names) else [str(run) for run in runs]
    rows = {name: session.measure_here(points, lists) for name, lists in zip(names, found, strict=True)}
    return rows | {"ensemble": session.measure_here(points, joined)}, joined.to_csr(points.relevance.shape[1])


def _config(run: Path) -> Config:
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} is not the folder of a run: it has no config.yaml")
    return load_config([run / "config.yaml"])


def _scores(run: Path, split: str, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix, load_npz

    path = run / f"{split}_score_mat.npz"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: `dexml eval {split} {run}` writes it")
    scores = csr_matrix(load_npz(path))
    if scores.shape != shape:
        raise ConfigError(f"{path} is {scores.shape}, the data are {shape} (points, labels): evaluate the run again")
    if scores.nnz and not 0 <= scores.data.min() <= scores.data.max() <= 1:
        raise ConfigError(f"{path}: its scores are not probabilities, which alone can be added up over lists")
    return scores


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dexml ensemble",
        description="Adds up the stored scores of several runs, label by label, and measures the sum beside each run.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run whose test was predicted")
    parser.add_argument("--split", choices=SPLITS, default="tst", help="split whose stored predictions are joined")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the ensemble's metrics and scores go")
    return parser
