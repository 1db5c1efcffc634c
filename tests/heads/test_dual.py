"""What the head makes ready for a step, and what the memory budget changes: time, not the gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import World
from dexml.encoders.memory import activation_bytes
from dexml.heads.dual import DualEncoder
from dexml.session import Session
from tests.helpers.models import toy_config

BATCH = Batch(np.arange(3, 14), epoch=1, step=7)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dual")


def head(root: Path, **keys: Any) -> DualEncoder:
    cfg = Config(**toy_config(root, **keys))
    session = Session(cfg, World())
    session.encoder.double().train()
    assert isinstance(session.head, DualEncoder)
    session.head.learn_from(session.dataset.trn)
    return session.head


def step(root: Path, **keys: Any) -> tuple[int, dict[str, Tensor]]:
    """Tokens encoded and the gradient."""
    dual = head(root, **keys)
    stats = dual.accumulate(dual.prepare(BATCH))
    return stats.tokens, {n: p.grad for n, p in dual.encoder.named_parameters() if p.grad is not None}


def test_what_does_not_fit_the_budget_is_encoded_twice_and_the_gradient_is_the_same(root: Path) -> None:
    whole, expected = step(root, memory_budget=1.0)
    dual = head(root, memory_budget=1.0)
    ready = dual.prepare(BATCH)
    queries, labels = ready.queries.chunks.tokens, ready.labels.chunks.tokens
    assert whole == queries + labels
    per_token = activation_bytes(dual.encoder, dual.cfg.tf_max_len)
    only_queries, nothing = (queries + 0.5) * per_token / 1e9, 1e-9
    largest = max(ready.labels.chunks.part_tokens)
    half = (queries + largest) * per_token / 1e9
    for budget, chunk, tokens in (
        (only_queries, 0, queries + 2 * labels),
        (only_queries, 4, queries + 2 * labels),
        (half, 0, queries + 2 * labels - ready.labels.chunks.part_tokens[0]),
        (nothing, 0, queries + 2 * labels),  # gc_bsz_x: 0 keeps the queries whatever they take
        (nothing, 4, 2 * queries + 2 * labels),
    ):
        found, gradient = step(root, memory_budget=budget, gc_bsz_x=chunk)
        assert found == tokens
        for name, grad in expected.items():
            torch.testing.assert_close(gradient[name], grad, rtol=1e-9, atol=1e-12, msg=name)


def test_a_pool_smaller_than_k_gives_no_loss_instead_of_an_error(root: Path) -> None:
    keys = {"net": "dist-de-hnm", "neg_type": "in-batch", "loss_criterion": "topk", "topk_K": 25}
    dual = head(root, **keys)
    ready = dual.prepare(Batch(np.array([3, 5]), epoch=0, step=0))
    assert len(ready.pool) < 25
    assert dual.accumulate(ready).loss == 0
    assert all(not p.grad.any() for p in dual.encoder.parameters() if p.grad is not None)


def test_the_correction_reaches_the_loss(root: Path) -> None:
    keys = {"net": "dist-de-hnm", "neg_type": "in-batch"}
    plain, corrected = (head(root, **keys, logq_correction=on) for on in (False, True))
    losses = [dual.accumulate(dual.prepare(BATCH)).loss for dual in (plain, corrected)]
    assert losses[1] > losses[0]  # every weight is at least 1
