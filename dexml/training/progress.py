"""What a user sees while it runs: a bar on a terminal, a line now and then elsewhere. Rank 0 alone speaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

log = logging.getLogger(__name__)
EVERY = 30.0  # seconds between lines where there is no terminal


@cache
def _screen() -> Progress:
    """The one live display: bars that overlap in time (an evaluation inside training) are lines of it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


class Bar:
    """One job of `total` units with a note that changes; `tick` is cheap enough for every step.

    A context manager: the terminal is given back however the block ends.
    """

    def __init__(self, title: str, total: int, done: int = 0, show: bool = True) -> None:
        self.title, self.total, self.done, self.show = title, total, done, show
        self.first, self.began = done, time.perf_counter()
        self.spoke = self.began
        self.live = show and _screen().console.is_terminal
        if self.live:
            self.task = _screen().add_task(title, total=total, completed=done, note="")
            _screen().start()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            _screen().remove_task(self.task)
            if not _screen().tasks:
                _screen().stop()

    def tick(self, n: int = 1, note: str = "") -> None:
        self.done += n
        if self.live:
            _screen().update(self.task, advance=n, note=note)
        elif self.show and time.perf_counter() - self.spoke > EVERY:
            self.spoke = time.perf_counter()
            left = (self.spoke - self.began) / max(1, self.done - self.first) * (self.total - self.done)
            log.info("%s %d/%d, %s left%s", self.title, self.done, self.total, clock(left), note and f", {note}")


def clock(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextmanager
def bar(title: str, total: int, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar for the time of a block; yields the function that advances it."""
    with Bar(title, total, show=show) as job:
        yield job.tick
