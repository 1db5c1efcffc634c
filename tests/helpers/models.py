"""Tiny transformers on disk, for runs of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.helpers.datasets import make_tokenizer, make_toy


def make_model(folder: Path, kind: str = "bert", width: int = 32, layers: int = 2, **settings: Any) -> Path:
    """A random transformer of 2 heads with a tokenizer for `make_toy`, saved for `from_pretrained`.

    kind: bert, roberta and mpnet (positions count from 1), distilbert, qwen2 (causal, one key-value head), t5.
    """
    import transformers

    make_tokenizer(folder)
    torch.manual_seed(0)
    name, shape = _SHAPES[kind](width, layers)
    config = getattr(transformers, f"{name}Config")(**({"vocab_size": 64, "pad_token_id": 0} | shape | settings))
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    return folder


def _bert_like(name: str) -> Callable[[int, int], tuple[str, dict[str, int]]]:
    def shape(width: int, layers: int) -> tuple[str, dict[str, int]]:
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2}
        return name, {"intermediate_size": 2 * width, "max_position_embeddings": 64, **sizes}

    return shape


_SHAPES: dict[str, Callable[[int, int], tuple[str, dict[str, int]]]] = {
    "bert": _bert_like("Bert"),
    "roberta": _bert_like("Roberta"),
    "mpnet": _bert_like("MPNet"),
    "qwen2": lambda width, layers: ("Qwen2", {**_bert_like("")(width, layers)[1], "num_key_value_heads": 1}),
    "distilbert": lambda width, layers: (
        "DistilBert",
        {"dim": width, "n_layers": layers, "n_heads": 2, "hidden_dim": 2 * width, "max_position_embeddings": 64},
    ),
    "t5": lambda width, layers: (
        "T5",
        {"d_model": width, "num_layers": layers, "num_heads": 2, "d_kv": width // 2, "d_ff": 2 * width},
    ),
}


def toy_config(root: Path, **keys: Any) -> dict[str, Any]:
    """Data set, model and settings of a run that takes seconds; `keys` come on top."""
    data, model = root / "Datasets" / "Toy", root / "model"
    if not data.exists():
        make_toy(data)
        make_model(model)
    return {
        "dataset": "Toy",
        "data_root": str(root / "Datasets"),
        "results_root": str(root / "Results"),
        "expname": "run",
        "tf": str(model),
        "tf_pooler": "mean",
        "tf_max_len": 16,
        "precision": "fp32",
        "bsz": 32,
        "gc_bsz": 16,
        "lr": 3e-3,
        "lr_scaling": "none",
        "loss_sample": False,
        "num_epochs": 4,
        "eval_interval": 2,
        "num_val_points": 40,
        "eval_topk": 10,
        **keys,
    }


def write_config(root: Path, **keys: Any) -> Path:
    """`toy_config` as a YAML file."""
    path = root / "run.yaml"
    path.write_text(yaml.safe_dump(toy_config(root, **keys)), encoding="utf-8")
    return path
