"""Seconds of phases, and the line a user reads."""

from __future__ import annotations

import pytest

from dexml import stopwatch
from dexml.stopwatch import PHASES, Stopwatch, in_words


def test_phases_add_up_and_a_lap_is_the_mean_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    watch = Stopwatch(on=True)
    for _ in range(2):
        for phase, seconds in (("encode queries", 2.0), ("loss", 1.0), ("loss", 0.5)):
            with watch.phase(phase):
                now[0] += seconds
        watch.steps += 1
    shares = watch.lap(8.0)
    assert list(shares) == [*PHASES, "other"]
    assert (shares["encode queries"], shares["loss"], shares["wait"], shares["other"]) == (2.0, 1.5, 0.0, 0.5)
    assert set(watch.lap(0.0).values()) == {0.0}


def test_a_phase_counts_when_its_block_fails() -> None:
    watch = Stopwatch(on=True)
    with pytest.raises(KeyError), watch.phase("loss"):
        raise KeyError
    assert watch.seconds["loss"] > 0


def test_off_it_tells_nothing() -> None:
    watch = Stopwatch()
    with watch.phase("loss"):
        pass
    assert set(watch.seconds.values()) == {0.0}


def test_the_line_names_the_largest_first_and_leaves_out_the_tiny() -> None:
    shares = {"wait": 0.0, "encode queries": 1.0, "loss": 0.001, "backward queries": 2.0}
    assert in_words(shares) == "3 s a step: backward queries 67 %, encode queries 33 %"
