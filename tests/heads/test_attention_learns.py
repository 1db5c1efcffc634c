"""Flat and tree-wise attention learn a corpus of topics: 64 labels, a word for each, among noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexml.config import Config
from dexml.distributed import World
from dexml.encoders.weights import load_weights
from dexml.session import Session
from tests.helpers.datasets import make_tokenizer, write_dataset
from tests.helpers.models import make_model
from tests.training.runs import train

N_LABELS, N_TOPICS, N_NOISE = 64, 8, 50
WORDS = [f"w{i}" for i in range(N_LABELS + N_TOPICS + N_NOISE)]
SETTINGS: dict[str, Any] = {
    "word_vectors": "random",
    "word_dim": 32,
    "lstm_width": 64,
    "linear_size": "32",
    "word_dropout": 0,
    "lstm_dropout": 0.1,
    "bsz": 32,
    "lr": 3e-3,
    "clf_lr": 3e-3,
    "warmup": 0,
    "weight_decay": 0,
    "max_grad_norm": 5,
    "num_epochs": 20,
    "eval_interval": 20,
    "num_val_points": 0,
    "num_threads": 1,
}


def points(n: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """A topic word, the words of 1 to 3 labels of the topic (label l has topic l mod 8) and 6 of noise, shuffled."""
    texts, relevance = [], np.zeros((n, N_LABELS), np.float32)
    for row in range(n):
        topic = int(rng.integers(N_TOPICS))
        labels = topic + N_TOPICS * rng.choice(N_LABELS // N_TOPICS, int(rng.integers(1, 4)), replace=False)
        relevance[row, labels] = 1
        noise = N_LABELS + N_TOPICS + rng.integers(0, N_NOISE, 6)
        words = [*labels.tolist(), N_LABELS + topic, *noise.tolist()]
        texts.append(" ".join(WORDS[i] for i in rng.permutation(words)))
    return texts, relevance


@pytest.mark.heavy
def test_both_learn_and_a_wider_beam_finds_no_more(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"label {i}" for i in range(N_LABELS)]
    write_dataset(tmp_path / "Datasets" / "Toy", points(2000, rng), points(500, rng), names)
    make_tokenizer(tmp_path / "words", WORDS)
    make_model(tmp_path / "model")
    settings = {**SETTINGS, "tf_token_type": str(tmp_path / "words")}
    _, flat = train(tmp_path, **settings, net="bilstm", expname="flat")
    tree = {"net": "attentionxml", "cluster_size": 4, "beam_width": 8, "expname": "tree"}
    cfg, two = train(tmp_path, **settings, **tree)
    print({name: (flat[name], two[name]) for name in ("P@1", "P@3", "P@5")})
    assert flat["P@1"] > 95
    assert two["P@1"] > 95
    wider = _evaluated(cfg.model_copy(update={"beam_width": 16}))
    print(wider["P@1"], wider["P@3"])
    assert abs(wider["P@1"] - two["P@1"]) < 1


def _evaluated(cfg: Config) -> dict[str, Any]:
    """The test metrics of a finished run with other settings of its search."""
    session = Session(cfg, World())
    load_weights(session.encoder, cfg.out_dir / "best")
    session.head.load_bundle(cfg.out_dir / "best", session.dataset.label_texts)
    return session.evaluate("tst")["tst"][0]
