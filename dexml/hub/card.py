"""The model card of a bundle: README.md, with the front matter that the Hub reads.

Its figures are those that the run has written down; nothing is measured here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dexml.hub.bundle import EMBEDDINGS, SETTINGS, read_labels
from dexml.hub.cardtext import (
    METRICS,
    Given,
    about_scores,
    base_model,
    frequencies,
    introduction,
    licences,
    results,
    training,
)
from dexml.hub.snippets import snippets
from dexml.report.run import Run

LOSSES = {"decoupled-softmax": "DecoupledSoftmax", "topk": "SoftTopK", "softmax": "Softmax", "bce": "BCE"}


def model_card(folder: Path, name: str, run: Run | None, given: Given, on_hub: bool) -> str:
    """The card of the bundle in `folder`, which others load as `name`: a Hub id, or a folder."""
    labels = read_labels(folder)
    example = next((label for label in labels if label), "a text")
    tested = run is not None and run.tested is not None
    parts = [
        f"# {_short(name)}",
        introduction(folder, sum(1 for label in labels if label), run),
        "## Use",
        *(f"{way}:\n\n```{language}\n{code}```" for way, language, code in snippets(folder, name, example, on_hub)),
        about_scores(folder),
        *(["## Results", results(run), *frequencies(run)] if run is not None and tested else []),
        *(["## Training", training(run)] if run is not None else []),
        "## Licence",
        licences(_config(folder, run), given),
    ]
    return f"---\n{_front_matter(folder, name, run, given)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(folder: Path, name: str, run: Run | None, given: Given) -> str:
    from huggingface_hub import ModelCardData

    base, licence = base_model(_config(folder, run))
    vectors = (folder / EMBEDDINGS).exists()
    kinds = ["sentence-transformers", "feature-extraction", "sentence-similarity"] if vectors else []
    facts: dict[str, Any] = {
        "base_model": base,
        "datasets": [given.dataset_id] if given.dataset_id else None,
        "language": given.language,
        "library_name": "sentence-transformers" if vectors else "dexml",
        "license": given.license or licence,
        "pipeline_tag": "sentence-similarity" if vectors else "text-classification",
        "tags": [*kinds, "extreme-multi-label-classification", "dexml", *_tags(run)],
    }
    if run is not None and run.tested:
        facts |= {"model_name": _short(name), "eval_results": _eval_results(run, given)}
    return ModelCardData(**{key: value for key, value in facts.items() if value}).to_yaml().strip()


def _config(folder: Path, run: Run | None) -> dict[str, Any]:
    path = folder / SETTINGS
    if run is not None:
        return run.config
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def _tags(run: Run | None) -> list[str]:
    if run is None:
        return []
    found = {"loss": LOSSES.get(run.config.get("loss_criterion", "")), "dataset_size": run.metrics.get("N_train")}
    return [f"{name}:{value}" for name, value in found.items() if value]


def _eval_results(run: Run, given: Given) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-classification",
            task_name="Extreme multi-label classification",
            dataset_type=given.dataset_id or "unknown",
            dataset_name=run.dataset,
            dataset_split="test",
            metric_type=metric,
            metric_name=metric,
            metric_value=round(run.metrics[metric], 2),
        )
        for row in METRICS
        for metric in row
        if metric in run.metrics
    ]


def _short(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]
