"""Training runs in processes of their own that are killed with SIGKILL at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PRELOAD = ["dexml.cli", "dexml.training.trainer", "transformers.models.bert.modeling_bert"]
DEADLINE = 240.0  # seconds

# --- from inside: exact moments ---------------------------------------------------------------------------------------

# where the process dies: module or class, function, and a seeded choice of the call
MOMENTS: dict[str, tuple[str, str, range]] = {
    "saving": ("dexml.training.directory", "_flush", range(1, 9)),
    "training": ("dexml.training.trainer:Trainer", "_tell", range(1, 4)),
    "evaluating": ("dexml.training.rundir:RunFolder", "_write_tsv", range(2, 3)),  # the first is that of the start
    "exporting": ("dexml.training.results", "fill_bundle", range(1, 2)),
}


def run_to(config: Path, moment: str = "", seed: int = 0) -> int:
    """The exit code of `dexml train CONFIG` in a forked process that kills itself at the moment; "" lets it end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)  # the libraries are loaded once
    process = context.Process(target=_train, args=(str(config), moment, seed))
    process.start()
    process.join(DEADLINE)
    assert process.exitcode is not None, f"{config} did not get to {moment or 'its end'}"
    return process.exitcode


def _train(config: str, moment: str, seed: int) -> None:
    out = os.open(f"{config}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if moment:
        _arm(moment, random.Random(seed))
    from dexml.cli import main

    sys.exit(main(["train", config]))


def _arm(moment: str, draw: random.Random) -> None:
    place, name, counts = MOMENTS[moment]
    module, _, inner = place.partition(":")
    __import__(module)
    owner: Any = getattr(sys.modules[module], inner) if inner else sys.modules[module]
    real, left = getattr(owner, name), [draw.choice(counts)]

    def dying(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        result = real(*args, **kwargs)
        if left[0] == 0:
            die = threading.Timer(draw.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGKILL))
            die.start()
            if moment != "training":  # a step may go on for a while, the others stay where they are
                die.join()
        return result

    setattr(owner, name, dying)


# --- from outside: the program as a user starts it -------------------------------------------------------------------

Moment = Callable[[], bool]


def start_program(config: Path) -> subprocess.Popen[bytes]:
    """`python train.py CONFIG`."""
    with Path(f"{config}.out").open("ab") as out:
        return subprocess.Popen([sys.executable, "train.py", str(config)], cwd=REPOSITORY, stdout=out, stderr=out)


def while_saving(run: Path) -> Moment:
    """A checkpoint is being written."""
    return lambda: any((run / "checkpoints").glob(".step-*.tmp"))


def after_progress(run: Path, seconds: float) -> Moment:
    """So long after a checkpoint that was not there at the start."""
    before, seen = _names(run), [0.0]

    def reached() -> bool:
        if not seen[0] and _names(run) - before:
            seen[0] = time.monotonic()
        return bool(seen[0]) and time.monotonic() - seen[0] >= seconds

    return reached


def _names(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").glob("step-*")}


def kill_at(process: subprocess.Popen[bytes], moment: Moment) -> bool:
    """SIGKILL when the moment has come; False if the run ended before."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None:
        assert time.monotonic() < deadline, "the moment did not come"
        if moment():
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    return False
