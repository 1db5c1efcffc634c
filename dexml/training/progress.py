"""What a user sees while it runs: a bar on a terminal, a line now and then elsewhere. Rank 0 alone speaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
EVERY = 30.0  # seconds between lines where there is no terminal


class Bar:
    """One job of `total` units with a note that changes; `tick` is cheap enough for every step."""

    def __init__(self, title: str, total: int, done: int = 0, show: bool = True) -> None:
        self.title, self.total, self.done = title, total, done
        self.first, self.began = done, time.perf_counter()
        self.spoke = self.began
        self.show = show
        self.progress: Progress | None = None
        console = Console(stderr=True)
        if show and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.progress = Progress(*columns, console=console, transient=True)
            self.task = self.progress.add_task(title, total=total, completed=done, note="")
            self.progress.start()

    def tick(self, n: int = 1, note: str = "") -> None:
        self.done += n
        if self.progress is not None:
            self.progress.update(self.task, advance=n, note=note)
        elif self.show and time.perf_counter() - self.spoke > EVERY:
            self.spoke = time.perf_counter()
            left = (self.spoke - self.began) / max(1, self.done - self.first) * (self.total - self.done)
            log.info("%s %d/%d, %s left%s", self.title, self.done, self.total, clock(left), note and f", {note}")

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()


def clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextmanager
def bar(title: str, total: int, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar for the time of a block; yields the function that advances it."""
    job = Bar(title, total, show=show)
    try:
        yield job.tick
    finally:
        job.close()
