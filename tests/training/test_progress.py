"""Progress on a terminal and in a log file."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from dexml.training import progress
from dexml.training.log import start_log
from dexml.training.progress import Bar, bar, clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """A terminal of 80 columns."""
    screen = io.StringIO()
    progress._screen.cache_clear()
    live = progress._screen()
    monkeypatch.setattr(live.live, "console", Console(file=screen, force_terminal=True, width=80, height=24))
    yield screen
    progress._screen.cache_clear()


def test_bars_that_overlap_share_one_display_and_end_with_it(terminal: io.StringIO) -> None:
    with Bar("training", 10, done=4) as training:
        training.tick(note="loss 1.25")
        with bar("evaluating val", 50) as advance:
            advance(20)
            progress._screen().refresh()
            assert [task.description for task in progress._screen().tasks] == ["training", "evaluating val"]
        training.tick(note="loss 1.00")
        progress._screen().refresh()
        assert progress._screen().live.is_started
    assert not progress._screen().live.is_started and not progress._screen().tasks
    text = terminal.getvalue()
    assert "5/10" in text and "loss 1.00" in text and "20/50" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_a_failure_inside_gives_the_terminal_back(terminal: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError), Bar("training", 10):
        _ = 1 / 0
    assert not progress._screen().live.is_started
    assert "\x1b[?25h" in terminal.getvalue()


def test_without_a_terminal_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start_log(True)
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with Bar("training", 1000, done=400) as training:
        for _ in range(62):
            now[0] += 1
            training.tick(note="loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training 431/1000, 9:29 left, loss 1.5", "training 462/1000, 8:58 left, loss 1.5"]


def test_a_rank_that_does_not_speak_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("training", 10, show=False) as training:
        training.tick(10)
    assert capsys.readouterr().err == ""
    assert logging.getLogger("dexml").handlers


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
