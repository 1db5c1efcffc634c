"""The folder of a run: its config, metrics and checkpoints, and the rules for starting in a folder that is in use."""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from scipy.sparse import csr_matrix, save_npz

from dexml.config import Config, ConfigError, load_config
from dexml.data.files import atomic_write
from dexml.data.locks import hold
from dexml.evaluation.calibration import Calibration
from dexml.evaluation.metrics import metric_columns, metrics_row
from dexml.hub.bundle import CALIBRATION
from dexml.training.checkpoint import forget_after

log = logging.getLogger(__name__)


class RunFolder:
    """`Results/<project>/<dataset>/<expname>/` or another `path`; rank 0 alone writes."""

    def __init__(self, cfg: Config, path: Path | None = None) -> None:
        self.cfg, self.path = cfg, path or cfg.out_dir
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.metrics_file = self.path / "metrics.json"
        self._claim: BinaryIO | None = None

    # --- starting ---

    def check(self, bytes_needed: int) -> None:
        """ConfigError if the folder is another run's or in use, cannot be written, or its disk is too full.

        Nothing is changed; a folder that is there is claimed.
        """
        held = 0
        if self.path.exists():
            self.claim()
        if self.cfg.resume != "never":
            self._check_owner()
            held = sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())
        place = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            why = "no write permission" if place.is_dir() else "it is a file"
            raise ConfigError(f"{self.path}: cannot write results there ({place}: {why}): set results_root")
        free = shutil.disk_usage(place).free
        if free + held < bytes_needed:
            raise ConfigError(
                f"{self.path}: {free / 1e9:.2f} GB free, the run needs {(bytes_needed - held) / 1e9:.2f} GB: "
                f"free some space, lower save_keep or set results_root"
            )

    def open(self) -> None:
        """Makes the folder; with `resume: never` one that is there is kept under another name."""
        self.claim()
        try:
            if self.cfg.resume == "never":
                self.set_aside()
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.cfg.dump(self.path / "config.yaml")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot write results there ({error}): set results_root") from error

    def claim(self) -> None:
        """Keeps other processes out until `release` or the end of this one; ConfigError if one of them is in."""
        if self._claim is not None:
            return
        file = self.path.with_name(f".{self.path.name}.lock")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._claim = hold(file, wait=False)
        except BlockingIOError as error:
            raise ConfigError(
                f"{self.path}: another process is training there: wait for its end, or give this run another expname"
            ) from error
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot write results there ({error}): set results_root") from error

    def release(self) -> None:
        """Lets other processes train there."""
        if self._claim is not None:
            with self._claim, suppress(OSError):
                Path(self._claim.name).unlink()
            self._claim = None

    def _check_owner(self) -> None:
        """Only the config that started a folder may go on in it."""
        changes = self._changes()
        if changes:
            raise ConfigError(
                f"{self.path} holds a run with other settings ({', '.join(changes.values())}): give this one another "
                f"expname, or start over with --resume never (the old folder is kept under another name)"
            )

    def _changes(self) -> dict[str, str]:
        """`key: before -> now` of every key that differs from the folder's config and matters for results."""
        file = self.path / "config.yaml"
        if not file.exists():
            return {}
        before = load_config([file])
        old, new = before.to_dict(), self.cfg.to_dict()
        return {key: f"{key}: {old[key]} -> {new[key]}" for key in self.cfg.changed(before)}

    def set_aside(self) -> None:
        """Keeps a folder that is in use under another name."""
        if not self.path.exists():
            return
        number = 1
        while (old := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(old)
        log.info("%s was in use: kept as %s", self.path, old.name)

    # --- metrics ---

    def record(self, entry: dict[str, Any]) -> None:
        """Adds an evaluation to metrics.jsonl and metrics.tsv."""
        self._write([*self.entries(), entry])

    def entries(self) -> list[dict[str, Any]]:
        """The evaluations so far; a line that was cut off is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def rewind(self, step: int) -> None:
        """Forgets what came after `step`: a resumed run makes it again."""
        self.metrics_file.unlink(missing_ok=True)
        for unfinished in self.path.glob(".*.tmp"):  # what a killed run was writing
            if unfinished.is_file():
                unfinished.unlink()
        forget_after(self.checkpoints, step)
        self._write([entry for entry in self.entries() if entry["step"] <= step])

    def _write(self, entries: list[dict[str, Any]]) -> None:
        with atomic_write(self.path / "metrics.jsonl") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        self._write_tsv(entries)

    def _write_tsv(self, entries: list[dict[str, Any]]) -> None:
        columns = metric_columns({name: 0.0 for entry in entries for name in entry})
        lines = ["\t".join(["", *columns, "loss"])] if entries else []
        for entry in entries:
            name = f"{entry['split']} {entry['epoch']}/{self.cfg.num_epochs}"
            cells = [f"{entry[column]:.2f}" if column in entry else "" for column in columns]
            lines.append("\t".join([name, *cells, f"{entry['loss']:.4E}"]))
        with atomic_write(self.path / "metrics.tsv") as file:
            file.write("".join(line + "\n" for line in lines).encode())

    def write_table(self, stem: str, rows: dict[str, dict[str, Any]]) -> None:
        """Writes <stem>_metrics.json and <stem>_metrics.tsv, what `dexml eval` found: one row a way."""
        with atomic_write(self.path / f"{stem}_metrics.json") as file:
            file.write((json.dumps(rows, indent=1) + "\n").encode())
        lines = [["", *metric_columns(next(iter(rows.values())))]]
        lines += [[name, *metrics_row(metrics)] for name, metrics in named(self.cfg.expname, rows).items()]
        with atomic_write(self.path / f"{stem}_metrics.tsv") as file:
            file.write("".join("\t".join(line) + "\n" for line in lines).encode())

    def write_scores(self, stem: str, scores: csr_matrix) -> None:
        """Writes <stem>_score_mat.npz, points x labels."""
        with atomic_write(self.path / f"{stem}_score_mat.npz") as file:
            save_npz(file, scores)

    def write_calibration(self, calibration: Calibration | None) -> None:
        """Writes calibration.json, or takes away what an earlier start left."""
        path = self.path / CALIBRATION
        path.unlink(missing_ok=True)
        if calibration is not None:
            with atomic_write(path) as file:
                file.write((json.dumps(calibration.to_dict(), indent=1) + "\n").encode())

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, the mark of a run that is done; without `save` its checkpoints go."""
        with atomic_write(self.metrics_file) as file:
            file.write((json.dumps(metrics, indent=1) + "\n").encode())
        if not self.cfg.save:
            shutil.rmtree(self.checkpoints)

    def finished(self) -> dict[str, Any] | None:
        """The metrics of a run of these settings that is done; ConfigError if they are of other settings."""
        if self.cfg.resume != "auto" or not self.metrics_file.exists():
            return None
        self._check_owner()
        return json.loads(self.metrics_file.read_text(encoding="utf-8"))


def named(name: str, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of a table: the name alone for one way of predicting, with the way for several."""
    return {name if len(rows) == 1 else f"{name} {way}": metrics for way, metrics in rows.items()}
