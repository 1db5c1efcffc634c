"""Label weights that learn first, on vectors made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dexml.config import ConfigError
from dexml.data.batching import epoch_batches
from dexml.distributed import World
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.step import Stepper
from dexml.training.warmup import FIRST_EPOCH
from tests.helpers.models import toy_config
from tests.helpers.processes import run_ranks
from tests.training.runs import config, train
from tests.training.warm import KEYS, warmed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("warmup")
    toy_config(root)
    return root


def test_weights_are_those_of_steps_that_leave_the_encoder_as_it_is(root: Path) -> None:
    found = warmed(root, World()).head.own["weight"]
    cfg = config(root, bsz=30, tf_dropout=0.0, lr=1e-30, **{**KEYS, "head_epochs": 0})
    session = Session(cfg, World())
    session.encoder.double().train()
    head = session.head
    head.learn_from(session.training_split)
    head.fit_structure(session.embedder())
    rows = session.train_rows
    stepper, state = Stepper(cfg, head, World(), 2 * -(-len(rows) // 30)), TrainState()
    for epoch in (FIRST_EPOCH, FIRST_EPOCH + 1):
        for batch in epoch_batches(rows, 30, cfg.seed, epoch):
            stepper.step([head.prepare(batch)], state)
    # vectors are stored in float32
    torch.testing.assert_close(found, head.own["weight"], rtol=1e-4, atol=1e-5)


def test_the_encoder_stays_as_it_is_and_is_trained_afterwards(root: Path) -> None:
    head = warmed(root, World()).head
    new = Session(head.cfg, World()).encoder  # type: ignore[attr-defined]
    for name, value in new.state_dict().items():
        assert torch.equal(value, head.encoder.state_dict()[name].float())
    assert len(head.shared) == len(list(new.parameters())) and all(p.requires_grad for p in head.shared)


@pytest.mark.parametrize("n", [2, 3])
def test_processes_warm_up_to_the_same_weights(root: Path, tmp_path: Path, n: int) -> None:
    run_ranks(n, "tests.training.warm", str(root), str(tmp_path / "many.npz"))
    rows_LD = warmed(root, World()).head.own["weight"].detach().numpy()
    with np.load(tmp_path / "many.npz") as many:
        # vectors of another batch differ in the last place of float32, in which they are stored
        np.testing.assert_allclose(many["rows"], rows_LD, rtol=1e-5, atol=1e-6)


def test_a_run_that_was_warmed_up_begins_where_the_weights_know_something(root: Path) -> None:
    keys = {"net": "dist-clf-net", "clf_lr": 0.03, "clf_init": "zeros", "num_epochs": 1, "eval_interval": 1, "lr": 1e-5}
    cold = train(root, expname="cold", save=False, **keys)[1]["P@1"]
    cfg, warm = train(root, expname="warm", save=False, head_epochs=20, **keys)
    assert warm["P@1"] > cold + 20
    assert "label weights after 20 epochs on fixed vectors" in (cfg.out_dir / "log.txt").read_text()


def test_heads_without_weights_of_their_own_have_nothing_to_warm_up(root: Path) -> None:
    with pytest.raises(ConfigError, match="head_epochs is for label weights on a vector of the text alone"):
        config(root, head_epochs=1)
    with pytest.raises(ConfigError, match="with clf_joint"):
        config(root, head_epochs=1, net="dist-clf-net", clf_joint=True)
