"""What heads on features share: parts of a batch, points without labels, pairs that are filtered out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import World
from dexml.heads.attentionxmltree import level_dataset
from dexml.heads.treebuild import from_levels
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.step import Stepper
from tests.heads.attention_step import CASES as ATTENTION
from tests.heads.attention_step import run_config
from tests.heads.plt_step import NET as PLT
from tests.helpers.datasets import make_toy, write_dataset, write_lines
from tests.helpers.models import make_model, toy_config
from tests.training.runs import train

CASES: dict[str, dict[str, Any]] = {
    "flat": ATTENTION["flat"],
    "tree": ATTENTION["tree"],
    "tree-random": ATTENTION["tree-random"],
    "plt": {**PLT, "plt_loss": "per_doc"},
    "plt-terms": {**PLT, "plt_loss": "per_term"},
    "plt-labelwise": ATTENTION["plt"],
    "plt-labelwise-terms": ATTENTION["plt-exact"],
    "plt-terms-sharded": {**PLT, "plt_loss": "per_term", "plt_table": "sharded"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model")
    train(root, **run_config())
    return root


def stepped(root: Path, most: int, **keys: Any) -> tuple[float, float, dict[str, Tensor]]:
    """Loss, length of the gradient and weights after a step from parts of `most` points, in float64."""
    cfg = Config(**toy_config(root, **keys, optim="sgd", lr=0.5, max_grad_norm=1e9))
    session = Session(cfg, World())
    session.encoder.double().train()
    session.head.learn_from(session.training_split)
    session.head.fit_structure(session.embedder())
    stepper = Stepper(cfg, session.head, World(), total=10)
    batch = Batch(np.arange(14), epoch=1, step=0)
    report = stepper.step([session.head.prepare(part) for part in batch.split(most)], TrainState())
    tensors = {**dict(session.head.model.named_parameters()), **session.head.own}
    return report.loss, report.norm, tensors


@pytest.mark.parametrize("case", CASES)
def test_a_batch_in_uneven_parts_is_the_whole_batch(root: Path, case: str) -> None:
    loss, norm, whole = stepped(root, 14, **CASES[case])
    loss_of_parts, norm_of_parts, parts = stepped(root, 5, **CASES[case])
    assert loss_of_parts == pytest.approx(loss, rel=1e-9)
    assert norm_of_parts == pytest.approx(norm, rel=1e-9)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name].detach(), value.detach(), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("net", "learns"), [("bilstm", True), ("plt", True), ("lightxml", False), ("mhe", False)])
def test_points_without_labels(tmp_path: Path, net: str, learns: bool) -> None:
    make_model(tmp_path / "model")
    texts, truth = ["a b", "c d", "e f", "g h"], np.zeros((4, 6))
    truth[0, :3] = truth[2, 4] = 1
    write_dataset(tmp_path / "Datasets" / "Toy", (texts, truth), (texts, truth), list("uvwxyz"))
    session = Session(Config(**toy_config(tmp_path, net=net, num_val_points=0, eval_topk=6)), World())
    assert session.train_rows.tolist() == ([0, 1, 2, 3] if learns else [0, 2])


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with pairs that a filter names: labels 1 of point 0 and 4 of point 3."""
    root = tmp_path_factory.mktemp("filtered")
    make_model(root / "model")
    texts, truth = ["a b", "c d", "e f", "g h"], np.zeros((4, 6))
    truth[0, [0, 2]] = truth[1, 1] = truth[2, 4] = truth[3, 5] = 1
    data = write_dataset(root / "Datasets" / "Toy", (texts, truth), (texts, truth), list("uvwxyz"))
    write_lines(data / "filter_labels_train.txt", ["0 1", "3 4"])
    return root


def prepared(root: Path, **keys: Any) -> tuple[Any, Any]:
    """A head and what it makes of the four points."""
    cfg = Config(**toy_config(root, num_val_points=0, eval_topk=6, **keys))
    head: Any = Session(cfg, World()).head
    head.learn_from(Session(cfg, World()).training_split)
    return head, head.prepare(Batch(np.arange(4), epoch=1, step=0))


def test_a_label_that_is_filtered_is_neither_true_nor_false(filtered: Path) -> None:
    words = {"word_vectors": "random", "word_dim": 8, "lstm_width": 8, "linear_size": "8", "num_epochs": 1}
    assert prepared(filtered, net="bilstm", **words)[1].count == 4 * 6 - 2
    tree = {"net": "attentionxml", "cluster_size": 1, "beam_width": 99, "expname": "tree", "bsz": 2, **words}
    train(filtered, **tree, num_val_points=0, eval_topk=6, track_metric="nDCG@5")
    head, ready = prepared(filtered, **tree)
    for row, cand in enumerate(ready.cand):
        left_out = {0: {1}, 3: {4}}.get(row, set())
        assert {int(head.named[node]) for node in cand if node >= 0} == set(range(6)) - left_out
    _, above = prepared(filtered, **tree, train_level=0)
    assert above.count == 4 * 6 - 2  # a cluster for each label


def test_a_cluster_with_a_true_label_stays_true_beside_a_filtered_one(filtered: Path) -> None:
    nodes = from_levels([np.array([0, 0, 1, 1, 2, 2])])
    data = Session(Config(**toy_config(filtered, num_val_points=0, eval_topk=6)), World()).dataset
    clusters = level_dataset(data, nodes, 0).trn
    assert clusters.relevance.toarray().tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert clusters.filters is not None and clusters.filters.nnz == 0  # both have a true label beside
    apart = level_dataset(data, from_levels([np.array([0, 2, 0, 1, 3, 2])]), 0).trn
    assert apart.filters is not None and np.argwhere(apart.filters.toarray()).tolist() == [[0, 2], [3, 3]]


def test_nets_that_learn_filtered_pairs_as_false_say_so(filtered: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: dict[str, int] = {}
    for net in ("bilstm", "plt", "dist-de-all", "lightxml"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            prepared(filtered, net=net, **{"doc_layers": 1} if net in ("plt", "lightxml") else {})
        told[net] = sum("filter_labels_train.txt: lightxml" in record.message for record in caplog.records)
    assert told == {"bilstm": 0, "plt": 0, "dist-de-all": 0, "lightxml": 1}
