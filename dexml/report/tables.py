"""The tables of the page that need no data set: costs, and the settings that differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from dexml.report.run import Run

UNTOLD = ("expname", "resume")  # settings that differ by nature


@dataclass(frozen=True)
class Row:
    """A line of a table: what it is about and a cell a run, empty where it is not known."""

    name: str
    cells: list[str]


def costs(runs: Sequence[Run]) -> list[Row]:
    """What the runs took, in time and memory; lines that no run knows are left out."""
    rows = [Row(name, [tell(run) for run in runs]) for name, tell in COSTS.items()]
    return [row for row in rows if any(row.cells)]


def differences(runs: Sequence[Run]) -> list[Row]:
    """Settings that are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: [_setting(run.config, key) for run in runs] for key in keys if key not in UNTOLD}
    return [Row(key, cells) for key, cells in values.items() if len(set(cells)) > 1]


def _setting(config: dict[str, Any], key: str) -> str:
    value = config.get(key, "")
    return value if isinstance(value, str) else json.dumps(value)


def duration(seconds: float) -> str:
    """42 s, 8 min 20 s, 3 h 05 min."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.2g} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(megabytes: float) -> str:
    if megabytes >= 1000:
        return f"{megabytes / 1000:.2f} GB"
    return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"


# ---- what a run knows of its costs ----------------------------------------------------------------------------------


def _machine(run: Run) -> str:
    found = [re.search(r"rank 0 of \d+ on (\S+)", run.log), re.search(r"steps, (\S+) encoder", run.log)]
    processes = re.search(r"rank 0 of (\d+) ", run.log)
    words = [match[1] for match in found if match]
    if processes:
        words.append(f"{processes[1]} process{'es' * (processes[1] != '1')}")
    return ", ".join(words)


def _steps(run: Run) -> str:
    if not run.evaluations:
        return ""
    last = run.evaluations[-1]
    return f"{last['step']:,} in {last['epoch']} epoch{'s' * (last['epoch'] != 1)}"


def _step(run: Run) -> str:
    return _lasted(_step_seconds(run))


def _epoch(run: Run) -> str:
    seconds = _step_seconds(run)
    if seconds is None or not run.evaluations:
        return ""
    last = run.evaluations[-1]
    return _lasted(seconds * last["step"] / max(1, last["epoch"]))


def _step_seconds(run: Run) -> float | None:
    """The mean if the run kept count, else the median of the log, which pauses hardly move."""
    counted = _sum(run, "seconds")
    if counted is not None:
        return counted / max(1, run.evaluations[-1]["step"])
    pairs = [(a, b) for a, b in pairwise(run.steps) if b.when > a.when]
    laps = [(b.when - a.when).total_seconds() / (b.number - a.number) for a, b in pairs]
    return median(laps) if laps else None


def _pace(run: Run) -> str:
    told = [(entry["seconds"], entry["tokens_per_s"]) for entry in run.evaluations if "tokens_per_s" in entry]
    if sum(seconds for seconds, _ in told) > 0:
        return f"{sum(seconds * pace for seconds, pace in told) / sum(seconds for seconds, _ in told):,.0f}"
    paces = [step.tokens_per_second for step in run.steps if step.tokens_per_second is not None]
    return f"{median(paces):,.0f}" if paces else ""


def _last(key: str) -> Callable[[Run], str]:
    def tell(run: Run) -> str:
        known = [entry[key] for entry in run.evaluations if key in entry]
        return f"{known[-1]:,.0f}" if known else ""

    return tell


def _total(key: str) -> Callable[[Run], str]:
    return lambda run: _lasted(_sum(run, key))


def _sum(run: Run, key: str) -> float | None:
    known = [float(entry[key]) for entry in run.evaluations if key in entry]
    return sum(known) if known else None


def _lasted(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _peak(run: Run) -> str:
    peaks = [float(entry["peak_mb"]) for entry in run.evaluations if entry.get("peak_mb")]
    return size(max(peaks)) if peaks else ""


def _file_size(name: str) -> Callable[[Run], str]:
    def tell(run: Run) -> str:
        file = run.path / Path(name)
        return size(file.stat().st_size / 1e6) if file.is_file() else ""

    return tell


COSTS: dict[str, Callable[[Run], str]] = {
    "Machine": _machine,
    "Steps": _steps,
    "Training": _total("seconds"),
    "Evaluations": _total("eval_seconds"),
    "Time of a step": _step,
    "Time of an epoch": _epoch,
    "Tokens encoded a second": _pace,
    "Tokens encoded a step": _last("tokens_per_step"),
    "Labels encoded a step": _last("labels_per_step"),
    "Peak memory": _peak,
    "Model on disk": _file_size("best/model.safetensors"),
    "Label embeddings on disk": _file_size("best/label_embeddings.safetensors"),
}
