"""What a run folder says about itself: config, evaluations, test metrics and the lines of its log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from dexml.config import FIELDS

LETTERS = "ABCDEF"
NUMBERS = {"epoch", "step", "loss", "n_docs", "A", "B"}  # beside the metrics, P@1 and the like
STEP_LINE = re.compile(r"^(\S+ \S+) \w+ step (\d+)/(\d+), loss (\S+),.*?(?: ([\d.]+) tokens/s|$)", re.MULTILINE)
LAST_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ", re.MULTILINE)


class ReportError(ValueError):
    """A folder that cannot be reported on; the message says what to give instead."""


@dataclass(frozen=True)
class Step:
    """A line of the log: the loss of a step and its pace."""

    when: datetime
    number: int
    total: int
    loss: float
    tokens_per_second: float | None


@dataclass(frozen=True)
class Run:
    """A run folder as read; `letter` names it in figures and tables."""

    letter: str
    path: Path
    config: dict[str, Any]
    evaluations: list[dict[str, Any]]
    """Lines of metrics.jsonl: split, epoch, step, loss, metrics in percent, and costs where they were taken."""
    tested: dict[str, Any] | None
    """metrics.json, the test metrics of a run that is done."""
    calibration: dict[str, Any] | None
    steps: list[Step]
    """Logged steps, ascending; a resumed run's repeats count once."""
    log: str = field(repr=False)

    @property
    def ended(self) -> datetime:
        """The time of the last line of the log, else of the newest file."""
        found = LAST_STAMP.findall(self.log)
        newest = max(file.stat().st_mtime for file in self.path.iterdir())
        return datetime.fromisoformat(found[-1]) if found else datetime.fromtimestamp(newest)

    @classmethod
    def read(cls, path: Path, letter: str = "A") -> Run:
        """ReportError unless `path` is a run folder with metrics."""
        if not path.is_dir():
            raise ReportError(f"{path}: no such folder; give a run: Results/<project>/<dataset>/<expname>")
        tested, evaluations = _json(path / "metrics.json"), list(_json_lines(path / "metrics.jsonl"))
        if tested is None and not evaluations:
            raise ReportError(
                f"{path} holds neither metrics.json nor an evaluation in metrics.jsonl: is it a run folder, "
                f"and has the run come to its first evaluation?"
            )
        log = _text(path / "log.txt")
        calibration = _json(path / "calibration.json")
        return cls(letter, path, _config(path / "config.yaml"), evaluations, tested, calibration, _steps(log), log)

    @property
    def name(self) -> str:
        return str(self.config.get("expname") or self.path.resolve().name)

    @property
    def dataset(self) -> str:
        return str(self.config.get("dataset") or self.path.resolve().parent.name)

    @property
    def metrics(self) -> dict[str, Any]:
        """The test metrics, before the end those of the last evaluation."""
        return self.tested if self.tested is not None else self.evaluations[-1]

    @property
    def split(self) -> str:
        return "tst" if self.tested is not None else str(self.evaluations[-1].get("split", "?"))

    @property
    def data_dir(self) -> Path | None:
        """The data folder of the config, looked for from here and from the folders around the run."""
        wanted = Path(str(self.config.get("data_root", FIELDS["data_root"].default)), self.dataset)
        places = (Path(), *self.path.resolve().parents)
        return next((place / wanted for place in places if (place / wanted).is_dir()), None)


def read_runs(paths: list[Path]) -> list[Run]:
    """The runs A, B, ...; ReportError if one is bad, given twice or of another data set than the first."""
    if len(paths) > len(LETTERS):
        raise ReportError(f"{len(paths)} runs given: a page holds at most {len(LETTERS)} side by side")
    runs = [Run.read(path, letter) for path, letter in zip(paths, LETTERS, strict=False)]
    for i, run in enumerate(runs):
        if run.path.resolve() in [other.path.resolve() for other in runs[:i]]:
            raise ReportError(f"{run.path} is given twice")
        if run.dataset != runs[0].dataset:
            raise ReportError(
                f"{run.path} is a run on {run.dataset}, {runs[0].path} on {runs[0].dataset}: "
                f"only runs on one data set can be compared; make a report for each"
            )
    return runs


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    return _object(path, 1, path.read_bytes())


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """A last line that is still being written is left out."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        entry = _object(path, number, line)
        if not {"epoch", "step"} <= entry.keys():
            raise ReportError(f"{path}:{number}: an evaluation has an epoch and a step: has the file been edited?")
        yield entry


def _object(path: Path, line: int, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ReportError(f"{path}:{line}: not JSON ({error}): has the file been edited?") from None
    if not isinstance(found, dict):
        raise ReportError(f"{path}:{line}: expected a JSON object of metrics")
    for key, value in found.items():
        if type(value) not in (int, float) and ("@" in key or key in NUMBERS):
            raise ReportError(f"{path}:{line}: {key} is {value!r}, not a number: has the file been edited?")
    return found


def _config(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise ReportError(f"{path}: not YAML ({error}): has the file been edited?") from None
    return found if isinstance(found, dict) else {}


def _steps(log: str) -> list[Step]:
    found: dict[int, Step] = {}
    for stamp, number, total, loss, pace in STEP_LINE.findall(log):
        when = datetime.fromisoformat(stamp)
        found[int(number)] = Step(when, int(number), int(total), float(loss), float(pace) if pace else None)
    return [found[number] for number in sorted(found)]
