"""The dual encoder with a vector for every label: it begins as the dual encoder, and both parts learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch
from dexml.data.tokens import Tokens
from dexml.distributed import World
from dexml.heads.base import Head
from dexml.hub.bundle import EMBEDDINGS, Bundle
from dexml.losses import Positives, softmax
from dexml.session import Session
from dexml.training.evaluate import Evaluation, evaluate
from dexml.training.target import Target
from dexml.training.trainer import Trainer
from tests.helpers.datasets import padded
from tests.helpers.models import toy_config
from tests.training.runs import batches, config, started, train, weights

BATCH = Batch(np.arange(3, 14), epoch=1, step=7)
NET = {"net": "dist-clf-net", "clf_joint": True, "clf_lr": 0.01}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joint")


def ready(root: Path, **keys: Any) -> tuple[Session, Head]:
    """A session and its head, in float64 before the first step."""
    session = Session(Config(**toy_config(root, **{"tf_dropout": 0.0, "loss_criterion": "softmax", **keys})), World())
    session.encoder.double().train()
    session.head.learn_from(session.dataset.trn)
    session.head.fit_structure(session.embedder())
    return session, session.head


def embed(session: Session, tokens: Tokens, rows: np.ndarray) -> Tensor:
    ids, lengths = padded(tokens, rows).astype(np.int64), tokens.gather(rows)[1].astype(np.int64)
    keys = torch.zeros(len(rows), dtype=torch.int32)
    return session.encoder(torch.from_numpy(ids), torch.from_numpy(lengths), keys)


def test_it_begins_as_the_dual_encoder(root: Path) -> None:
    losses = []
    for keys in ({"net": "dist-de-all"}, NET):
        trainer = started(config(root, expname=f"first-{keys['net']}", **keys))
        trainer._step(batches(trainer)[0])
        losses.append(trainer.state.loss_sum)
    assert losses[0] == losses[1]


def test_the_gradient_is_that_of_the_naive_formula(root: Path) -> None:
    session, head = ready(root, **NET)
    with torch.no_grad():
        head.own["weight"].copy_(torch.randn(head.own["weight"].shape, generator=torch.manual_seed(3)) / 5)
    stats = head.accumulate(head.prepare(BATCH))
    weight_LD = head.own["weight"].detach().clone().requires_grad_()
    query_GD = embed(session, session.tokens("trn"), BATCH.points)
    label_LD = embed(session, session.tokens("labels"), np.arange(len(weight_LD))) + weight_LD
    relevance = session.dataset.trn.relevance[BATCH.points]
    positives = Positives.from_csr(relevance.indptr, relevance.indices)
    expected = softmax(query_GD @ label_LD.T / session.cfg.tau, positives).mean
    assert stats.loss == pytest.approx(float(expected.detach()), rel=1e-9)
    wanted = torch.autograd.grad(expected, [weight_LD, *head.shared], allow_unused=True)
    for p, grad in zip([head.own["weight"], *head.shared], wanted, strict=True):
        if grad is not None:
            assert p.grad is not None
            torch.testing.assert_close(p.grad, grad, rtol=1e-7, atol=1e-9)


@pytest.fixture(scope="module")
def run(root: Path) -> tuple[Config, Trainer]:
    cfg = config(root, expname="joint", num_epochs=8, eval_interval=4, **NET)
    trainer = Trainer(cfg)
    trainer.fit()
    return cfg, trainer


def test_both_parts_learn(run: tuple[Config, Trainer], root: Path) -> None:
    cfg, trainer = run
    assert json.loads((cfg.out_dir / "metrics.json").read_text())["P@1"] > 60  # one prediction in 14 is right by chance
    assert trainer.session.head.own["weight"].detach().abs().max() > 0.01
    before = weights(started(config(root, expname="untouched")))
    assert any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_the_bundle_keeps_the_sums(run: tuple[Config, Trainer]) -> None:
    cfg, trainer = run
    bundle = Bundle.load(cfg.out_dir / "best")
    names = bundle.encoder.encode(list(bundle.labels))
    kept = load_file(cfg.out_dir / "best" / EMBEDDINGS)["labels"]
    np.testing.assert_allclose(kept - names, trainer.session.head.own["weight"].detach(), atol=1e-5)
    found = evaluate(Evaluation(Target.of([str(cfg.out_dir)]), "tst"))
    assert found is not None
    trained = json.loads((cfg.out_dir / "metrics.json").read_text())
    assert found["labels"]["P@1"] == trained["P@1"]
    assert found["labels"]["R@10"] == trained["R@10"]


def test_another_start_than_the_label_texts_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="clf_joint begins at the label texts: clf_init zeros does not fit"):
        train(root, clf_init="zeros", **NET)
