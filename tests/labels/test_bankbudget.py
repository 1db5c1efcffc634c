"""The round takes every label in its turn, the heaviest are found over all ranks."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexml.distributed import World
from dexml.labels.bankbudget import Round, heaviest

NONE = np.array([], np.int64)


@settings(max_examples=60, deadline=None)
@given(labels=st.integers(1, 40), n=st.integers(0, 50), known=st.integers(0, 40), seed=st.integers(0, 9))
def test_a_turn_takes_labels_that_are_not_taken_already(labels: int, n: int, known: int, seed: int) -> None:
    rng, turns = np.random.default_rng(seed), Round(labels, seed)
    for _ in range(3):
        taken = np.sort(rng.choice(labels, min(known, labels), replace=False))
        found = turns.take(n, taken)
        assert len(found) == min(n, labels - len(taken)) == len(set(found))
        assert not set(found) & set(taken)


def test_a_round_is_every_label_once() -> None:
    turns = Round(23, 0)
    found = np.concatenate([turns.take(5, NONE) for _ in range(4)] + [turns.take(3, NONE)])
    assert sorted(found) == list(range(23))
    assert list(turns.take(5, NONE)) == list(found[:5])
    assert list(Round(23, 0).take(5, NONE)) == list(found[:5]) != list(Round(23, 1).take(5, NONE))


def test_the_heaviest_labels_have_most_mass_and_some() -> None:
    mass = torch.tensor([0.5, 0.0, 2.0, 0.5, 1.0])
    assert heaviest(mass, 3, 10, World()).tolist() == [12, 14, 10]
    assert heaviest(mass, 9, 10, World()).tolist() == [12, 14, 10, 13]
    assert heaviest(torch.zeros(0), 2, 10, World()).tolist() == []
