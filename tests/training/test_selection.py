"""The best model, and the end of waiting for a better one."""

from __future__ import annotations

from dexml.training.checkpoint import TrainState
from dexml.training.selection import select


def judged(values: list[float], patience: int) -> tuple[TrainState, list[bool]]:
    state, better = TrainState(), []
    for step, value in enumerate(values, start=1):
        state.step = step
        better.append(select(state, value, patience))
        if state.stopped:
            break
    return state, better


def test_training_ends_after_so_many_evaluations_in_a_row_without_a_better_one() -> None:
    state, better = judged([1, 3, 2, 4, 4, 1, 9], patience=2)
    assert better == [True, True, False, True, False, False]
    assert state.stopped and state.best == {"value": 4, "step": 4}


def test_without_patience_it_never_ends() -> None:
    state, better = judged([5, 4, 3, 2, 1], patience=0)
    assert not state.stopped and (len(better), state.stale) == (5, 4)


def test_one_evaluation_of_patience_ends_at_the_first_that_is_no_better() -> None:
    assert judged([5, 5, 6], patience=1)[1] == [True, False]
