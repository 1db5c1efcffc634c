"""Tiny transformers on disk, for runs of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from tests.helpers.datasets import make_tokenizer, make_toy


def make_model(folder: Path, kind: str = "bert", width: int = 32, layers: int = 2, **settings: Any) -> Path:
    """A random 2-layer BERT or DistilBERT with a tokenizer for `make_toy`, saved for `from_pretrained`."""
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    make_tokenizer(folder)
    torch.manual_seed(0)
    if kind == "bert":
        shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2}
        config = BertConfig(vocab_size=64, intermediate_size=2 * width, max_position_embeddings=64, **shape, **settings)
        BertModel(config).save_pretrained(folder)
    else:
        shape = {"dim": width, "n_layers": layers, "n_heads": 2, "hidden_dim": 2 * width}
        config = DistilBertConfig(vocab_size=64, max_position_embeddings=64, **shape, **settings)
        DistilBertModel(config).save_pretrained(folder)
    return folder


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
