"""What bench/tokenize.py and bench/evaluate.py share: arguments, a child measured from outside, turns, the table.

No torch here: the peak memory of a child counts that of the process it was started from.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]

from bench.common import BenchError
from dexml.machine import cores

PEER = Path(__file__).parent / "peer"
MB = 1e6
POLL = 0.05  # seconds between two looks at a child's memory
THREAD_VARIABLES = ("OMP", "MKL", "OPENBLAS", "NUMBA", "RAYON")

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set; nothing is written there")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores(), help="threads of each side (default: all cores)")
    parser.add_argument("--peer", type=Path, help="checkout of nilesh2797/DEXML to run beside dexml")
    parser.add_argument("--peer-python", default="python3", help="Python with what the peer needs (transformers 4)")
    parser.add_argument("--json", type=Path, help="also write the figures here")


def check_arguments(args: argparse.Namespace, data_files: Sequence[str], peer_file: str) -> None:
    """BenchError for a data folder, a peer or a number that cannot be used; a peer's Python gets its whole path."""
    for key, value in vars(args).items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise BenchError(f"--{key.replace('_', '-')} {value}: at least 1 is needed")
    for name in data_files:
        if not (args.data / name).is_file():
            raise BenchError(f"{args.data / name} is missing: --data names a data folder (see Datasets/README.md)")
    if args.peer and not (args.peer / peer_file).is_file():
        raise BenchError(f"--peer {args.peer} lacks {peer_file}: clone nilesh2797/DEXML and name its folder")
    python = shutil.which(args.peer_python)
    if python is None:
        raise BenchError(f"--peer-python {args.peer_python}: no such program")
    args.peer_python = str(Path(python).absolute())  # a link stays one: it is what makes a virtual environment


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures were taken with, for the JSON file."""
    kept = {key: value for key, value in vars(args).items() if key != "json"}
    return {key: str(value) if isinstance(value, Path) else value for key, value in kept.items()}


def run_cli(main: Callable[[list[str], str], int], description: str) -> None:
    """Runs a bench and ends the process; what a user can mend is told without a traceback."""
    try:
        sys.exit(main(sys.argv[1:], description))
    except ValueError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


# ---- a side in a process of its own ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """What a child wrote into its result file, and what was seen of it from outside."""

    result: dict[str, Any]
    wall_seconds: float
    """from its start to its end, the interpreter's own start included"""
    peak_mb: float
    """of the child with its workers"""


def run_child(command: Sequence[str | Path], result: Path, threads: int, cwd: Path) -> Child:
    """Runs a command that writes JSON into `result`; BenchError with its last words if it fails.

    Its peak memory is the largest sum of proportional set sizes of all its processes (pages that they share count
    once), looked at every 50 ms, and no less than what the system has on record for its largest process.
    """
    env = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in THREAD_VARIABLES}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}  # nothing is written into the peer's checkout
    words, log_path = [str(word) for word in command], result.with_suffix(".log")
    result.unlink(missing_ok=True)
    start = time.perf_counter()
    with log_path.open("wb") as log:
        try:
            process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=cwd, env=env)
        except OSError as error:
            raise BenchError(f"{words[0]} cannot be started ({error.strerror})") from error
        peak = _watch(process)
    seconds = time.perf_counter() - start
    if process.returncode or not result.exists():
        end = "\n".join(log_path.read_text(errors="replace").strip().splitlines()[-12:])
        raise BenchError(f"{' '.join(words[:2])} ended with status {process.returncode}:\n{end}")
    return Child(json.loads(result.read_text(encoding="utf-8")), seconds, peak / MB)


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of a child and returns the bytes of its peak.

    The system's own count is exact, but a child starts with the count of this process: only what is above it is his.
    """
    watched, peak = psutil.Process(process.pid), 0
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                counted = usage.ru_maxrss if usage.ru_maxrss > inherited else 0
                return max(peak, counted * (1 if sys.platform == "darwin" else 1024))
            peak = max(peak, tree_bytes(watched))
            time.sleep(POLL)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def tree_bytes(process: psutil.Process) -> int:
    """Memory of a process and all that descend from it, shared pages counted once (on macOS as often as they occur)."""
    total = 0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                memory = one.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total


def take_turns(sides: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Results of every side, one a round; every other round goes backwards, so that none is always first."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            print(f"round {turn + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            results[name].append(sides[name]())
    return results


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


# ---- figures --------------------------------------------------------------------------------------------------------


def digits(value: float) -> str:
    """Three digits that matter, and thousands in groups."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shown(figure: Mapping[str, Any] | float | None) -> str:
    """A `spread` as median and extremes; one number as it is; `-` for none."""
    if figure is None:
        return "-"
    if isinstance(figure, Mapping):
        return f"{digits(figure['median'])} ({digits(figure['min'])} - {digits(figure['max'])})"
    return digits(figure)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need: the first to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )
