"""What activations cost is counted, and what may be kept follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dexml.distributed import World
from dexml.encoders.memory import activation_budget, activation_bytes, free_bytes
from dexml.encoders.packing import Packing
from tests.encoders.test_text import encoder
from tests.helpers.models import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("memory") / "bert")


def test_the_estimate_is_what_many_texts_keep(folder: Path) -> None:
    model = encoder(folder, 0.1).train()
    estimate = activation_bytes(model, 16)
    kept: dict[int, int] = {}
    held = []
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            held.append(x)
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model.packed(
            torch.ones(40 * 16, dtype=torch.long), Packing(np.full(40, 16)), torch.zeros(40, dtype=torch.int32)
        )
    assert sum(kept.values()) == pytest.approx(estimate * 40 * 16, rel=0.02)


def test_a_wider_or_deeper_model_costs_more_a_token_and_a_longer_text_does_not(folder: Path, tmp_path: Path) -> None:
    small = activation_bytes(encoder(folder, 0.0), 16)
    assert activation_bytes(encoder(make_model(tmp_path / "deep", layers=4), 0.0), 16) > 1.7 * small
    assert activation_bytes(encoder(make_model(tmp_path / "wide", width=64), 0.0), 16) > 1.7 * small
    assert activation_bytes(encoder(folder, 0.0), 32) == pytest.approx(small, rel=0.01)  # attention is not kept
    assert activation_bytes(encoder(folder, 0.1), 16) > small  # masks


@pytest.mark.parametrize("kind", ["t5", "mpnet"])
def test_models_that_are_padded_are_counted_too(tmp_path: Path, kind: str) -> None:
    assert activation_bytes(encoder(make_model(tmp_path / kind, kind)), 16) > 1000


def test_counting_leaves_no_trace(folder: Path) -> None:
    model = encoder(folder, 0.1).eval()
    state = torch.get_rng_state()
    activation_bytes(model, 16)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_the_budget_is_what_was_asked_for_or_a_quarter_of_the_free_memory() -> None:
    assert activation_budget(1.5, World()) == 1.5e9
    assert activation_budget(0, World()) == pytest.approx(0.25 * free_bytes(World()), rel=0.5)
    assert free_bytes(World()) > 1e8
