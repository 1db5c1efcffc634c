"""Label trees on the states of a BiLSTM learn a corpus of topics, and an ensemble of them knows what it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexml.data.dataset import Dataset
from dexml.evaluation.metrics import compute_metrics
from dexml.heads.label_features import pifa
from dexml.heads.plthead import TreeHead
from dexml.heads.treebuild import staged_tree
from dexml.hub.bundle import Bundle
from dexml.hub.ensemble_uncertainty import Question, measure
from tests.helpers.datasets import make_tokenizer, write_dataset, write_lines
from tests.training.runs import train

LABELS, TOPICS, NOISE, UNSEEN = 64, 8, 50, 50
WORDS = [f"{kind}{i}" for kind, n in zip("ltno", (LABELS, TOPICS, NOISE, UNSEEN), strict=True) for i in range(n)]
RUN: dict[str, Any] = {
    **{"net": "plt", "text_encoder": "bilstm", "word_vectors": "random", "word_dim": 32, "lstm_width": 64},
    **{"word_dropout": 0.0, "lstm_dropout": 0.1, "doc_layers": 1, "doc_dropout": 0.0, "tf_pooler": "mean"},
    **{"optim": "adam", "lr": 3e-3, "clf_lr": 3e-3, "bsz": 32, "num_epochs": 20, "max_grad_norm": 5.0, "warmup": 0.0},
    **{"weight_decay": 0.0, "num_val_points": 0, "eval_interval": 20, "eval_topk": 64},
}


def points(rng: np.random.Generator, n: int) -> tuple[list[str], np.ndarray]:
    """One to three labels of one topic: a word of each, that of the topic and six without meaning."""
    texts, truth = [], np.zeros((n, LABELS), np.float32)
    for row in range(n):
        topic, own = rng.integers(TOPICS), rng.choice(LABELS // TOPICS, rng.integers(1, 4), replace=False)
        labels = topic + TOPICS * own
        truth[row, labels] = 1
        words = [f"l{label}" for label in labels] + [f"t{topic}"] + [f"n{i}" for i in rng.integers(0, NOISE, 6)]
        texts.append(" ".join(rng.permutation(words)))
    return texts, truth


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("topics")
    rng = np.random.default_rng(0)
    data = write_dataset(root / "Datasets" / "Toy", points(rng, 2000), points(rng, 500), [f"l{i}" for i in range(64)])
    make_tokenizer(root / "model", WORDS)
    unseen = [" ".join(f"o{i}" for i in rng.integers(0, UNSEEN, 9)) for _ in range(500)]
    write_lines(root / "unseen.txt", unseen)
    trn = Dataset.load(data).trn
    counts = np.zeros((len(trn.texts), len(WORDS)), np.float32)
    for row, text in enumerate(trn.texts):
        for word in text.split():
            counts[row, WORDS.index(word)] += 1
    staged_tree(pifa(trn.relevance, counts), [2, 4], n_init=3).save(root / "tree.safetensors")
    return root


@pytest.mark.heavy
def test_three_members_learn_and_tell_unseen_words_apart(root: Path) -> None:
    tree = str(root / "tree.safetensors")
    runs = [train(root, **RUN, plt_tree=tree, plt_beam=0, seed=seed, expname=f"seed-{seed}") for seed in range(3)]
    for cfg, metrics in runs:
        assert metrics["P@1"] > 95
        wide, narrow = (beam(cfg.out_dir, width) for width in (4, 1))
        assert abs(wide["P@1"] - metrics["P@1"]) < 1 and abs(wide["P@3"] - metrics["P@3"]) < 1
        assert narrow["P@3"] < metrics["P@3"] - 5
    found = measure(Question([cfg.out_dir for cfg, _ in runs], ood=root / "unseen.txt", top_k=64))
    assert found is not None
    assert found["precision"]["ensemble"]["P@1"] > 99
    assert found["other texts"]["knowledge"]["auroc"] > 0.95
    assert found["means"]["largest bound"] == 0


@pytest.mark.heavy
@pytest.mark.parametrize("start", ["random", "texts"])
def test_nodes_that_look_at_words_learn(root: Path, start: str) -> None:
    keys = {key: value for key, value in RUN.items() if not key.startswith("doc_")}
    keys |= {"plt_scorer": "labelwise", "linear_size": "32", "query_init": start, "plt_beam": 0}
    cfg, exact = train(root, **keys, plt_tree=str(root / "tree.safetensors"), expname=f"labelwise-{start}")
    assert exact["P@1"] > 95
    wide = beam(cfg.out_dir, 4)
    assert abs(wide["P@1"] - exact["P@1"]) < 1 and abs(wide["P@3"] - exact["P@3"]) < 1


def beam(run: Path, width: int) -> dict[str, float]:
    """P@1 and P@3 of a run with another search."""
    bundle, test = Bundle.load(run / "best"), Dataset.load(run.parents[3] / "Datasets" / "Toy").tst
    head = bundle.finder.head  # type: ignore[union-attr]
    assert isinstance(head, TreeHead)
    head.cfg = head.cfg.model_copy(update={"plt_beam": width})
    with torch.no_grad():
        ids, _ = bundle.search(list(test.texts), 3)
    return compute_metrics(ids, test.relevance, ks=(1, 3), recall_ks=(), mrr_k=1)
