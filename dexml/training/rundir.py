"""The folder of a run: its config, log, metrics and checkpoints, and the rules for starting in a folder that is in use."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from dexml.config import Config, ConfigError, load_config
from dexml.data.files import atomic_write
from dexml.evaluation.metrics import metric_columns, metrics_row

log = logging.getLogger(__name__)


class RunFolder:
    """`Results/<project>/<dataset>/<expname>/`; rank 0 alone writes."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.path = cfg, cfg.out_dir
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.metrics_file = self.path / "metrics.json"

    # --- starting ---

    def open(self, bytes_needed: int) -> None:
        """Makes the folder; ConfigError if it is another run's, cannot be written or the disk is too full."""
        if self.cfg.resume == "never":
            self._set_aside()
        self._check_owner()
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
            self.cfg.dump(self.path / "config.yaml")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot write results there ({error.strerror}): set results_root") from error
        free = shutil.disk_usage(self.path).free
        if free < bytes_needed:
            raise ConfigError(
                f"{self.path}: {free / 1e9:.1f} GB free, checkpoints need {bytes_needed / 1e9:.1f} GB: "
                f"free some space, lower save_keep or set results_root"
            )

    def _check_owner(self) -> None:
        """Only the config that started a folder may go on in it."""
        file = self.path / "config.yaml"
        if not file.exists():
            return
        keys = self.cfg.changed(load_config([file]))
        if keys:
            before = load_config([file]).to_dict()
            changes = ", ".join(f"{key}: {before[key]} -> {self.cfg.to_dict()[key]}" for key in keys)
            raise ConfigError(
                f"{self.path} holds a run with other settings ({changes}): give this one another expname, "
                f"or start over with --resume never (the old folder is kept under another name)"
            )

    def _set_aside(self) -> None:
        if not self.path.exists():
            return
        number = 1
        while (old := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(old)
        log.info("%s was in use: kept as %s", self.path, old.name)

    # --- metrics ---

    def record(self, entry: dict[str, Any]) -> None:
        """Adds an evaluation to metrics.jsonl and rewrites metrics.tsv from it."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._write_tsv(self.entries())

    def entries(self) -> list[dict[str, Any]]:
        """The evaluations so far; a line cut off by a kill is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def rewind(self, step: int) -> None:
        """Forgets evaluations after `step`: a resumed run makes them again."""
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        with atomic_write(self.path / "metrics.jsonl") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self._write_tsv(kept)

    def _write_tsv(self, entries: list[dict[str, Any]]) -> None:
        lines = []
        for entry in entries:
            if not lines:
                lines.append("\t".join(["", *metric_columns(entry), "loss"]))
            name = f"{entry['split']} {entry['epoch']}/{self.cfg.num_epochs}"
            lines.append("\t".join([name, *metrics_row(entry), f"{entry['loss']:.4E}"]))
        with atomic_write(self.path / "metrics.tsv") as file:
            file.write("".join(line + "\n" for line in lines).encode())

    def write_split(self, split: str, metrics: dict[str, Any]) -> None:
        """Writes <split>_metrics.tsv, the result of `dexml eval`."""
        rows = [["", *metric_columns(metrics)], [self.cfg.expname, *metrics_row(metrics)]]
        with atomic_write(self.path / f"{split}_metrics.tsv") as file:
            file.write("".join("\t".join(row) + "\n" for row in rows).encode())

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, the mark of a run that is done."""
        with atomic_write(self.metrics_file) as file:
            file.write((json.dumps(metrics, indent=1) + "\n").encode())

    def finished(self) -> dict[str, Any] | None:
        if self.cfg.resume != "auto" or not self.metrics_file.exists():
            return None
        return json.loads(self.metrics_file.read_text(encoding="utf-8"))


class Terminal(logging.Handler):
    """Looks up stderr at every line, so that a progress bar can move out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def start_log(speak: bool) -> None:
    """Sends the project's log to the terminal; ranks that do not `speak` show errors only."""
    root = logging.getLogger("dexml")
    root.handlers.clear()
    root.setLevel(logging.INFO if speak else logging.ERROR)
    root.propagate = False
    root.addHandler(Terminal())


def log_to(path: Path) -> None:
    """Sends the project's log to a file, too."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.getLogger("dexml").addHandler(file)
