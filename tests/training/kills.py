"""Starting a training run in a process of its own and killing it at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).resolve().parents[2]
PRELOAD = ["dexml.cli", "dexml.training.trainer", "transformers.models.bert.modeling_bert"]
DEADLINE = 120.0  # seconds

Moment = Callable[[Path], bool]


class Process(Protocol):
    pid: int | None


def start_program(config: Path) -> subprocess.Popen[bytes]:
    """`python train.py CONFIG`, as a user starts it."""
    with config.with_suffix(".out").open("ab") as out:
        return subprocess.Popen([sys.executable, "train.py", str(config)], cwd=REPOSITORY, stdout=out, stderr=out)


def start_fork(config: Path) -> _Fork:
    """The same in a process forked from one that has the libraries loaded: seconds are saved."""
    return _Fork(config)


class _Fork:
    def __init__(self, config: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.process = context.Process(target=_train, args=(str(config),))
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        return int(self.process.exitcode or 0)


def _train(config: str) -> None:
    from dexml.cli import main

    out = os.open(f"{config}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.exit(main(["train", config]))


# --- moments ------------------------------------------------------------------------------------------------------------


def while_saving(run: Path) -> bool:
    """A checkpoint is being written."""
    return any((run / "checkpoints").glob(".step-*.tmp"))


def while_exporting(run: Path) -> bool:
    """The bundle is being written."""
    return (run / ".best.tmp").exists()


def after_progress(run: Path, seconds: float) -> Moment:
    """So long after a checkpoint that was not there at the start."""
    before, seen = set(_names(run)), [0.0]

    def reached(run: Path) -> bool:
        if not seen[0] and set(_names(run)) - before:
            seen[0] = time.monotonic()
        return bool(seen[0]) and time.monotonic() - seen[0] >= seconds

    return reached


def _names(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").glob("step-*")]


def kill_at(process: subprocess.Popen[bytes] | _Fork, run: Path, moment: Moment) -> bool:
    """SIGKILL when the moment has come; False if the run ended before."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None:
        assert time.monotonic() < deadline, f"{run} did not get to {moment}"
        if moment(run):
            os.kill(int(process.pid or 0), signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    return False


def moments(run: Path, kills: int, seed: int) -> list[Callable[[], Moment]]:
    """Seeded: every third kill falls into a save, the others some time after a step."""
    draw = random.Random(seed)
    delays = [draw.uniform(0, 0.3) for _ in range(kills)]
    return [
        (lambda: while_saving) if i % 3 == 0 else (lambda delay=delay: after_progress(run, delay))
        for i, delay in enumerate(delays)
    ]
