"""Which model is kept, and when waiting for a better one ends."""

from __future__ import annotations

import math

from dexml.training.checkpoint import TrainState


def select(state: TrainState, value: float, patience: int) -> bool:
    """Notes in `state` whether the model as it is now is the best so far, and returns that.

    Training is over after `patience` evaluations in a row without a better one; 0 waits for ever. `value`, the tracked
    metric, is that of rank 0 on every rank.
    """
    better = value > state.best.get("value", -math.inf)
    if better:
        state.best = {"value": value, "step": state.step}
    state.stale = 0 if better else state.stale + 1
    state.stopped = 0 < patience <= state.stale
    return better
