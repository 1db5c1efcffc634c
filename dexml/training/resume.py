"""Where a run goes on from, and what it saves to go on from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dexml.config import Config
from dexml.session import Session
from dexml.training.averaging import Average
from dexml.training.checkpoint import (
    TrainState,
    check_identity,
    checkpoint_path,
    load_checkpoint,
    load_weights,
    newest,
    prune,
    read_state,
    save_checkpoint,
    save_shard,
    shard_path,
)
from dexml.training.cost import joined
from dexml.training.directory import verify
from dexml.training.rng import rng_state
from dexml.training.step import Stepper

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run in `folder`: encoder, head, optimiser, random state and counters."""

    def __init__(self, cfg: Config, folder: Path, session: Session, stepper: Stepper, average: Average) -> None:
        self.cfg, self.folder, self.session, self.stepper, self.average = cfg, folder, session, stepper, average
        self.world, self.head = session.world, session.head

    @property
    def _identity(self) -> dict[str, Any]:
        return {"config": self.cfg.to_dict(), "data": self.session.fingerprint, "processes": self.world.size} | {
            "precision": self.session.encoder.precision
        }

    def to_resume(self) -> Path | None:
        """A whole checkpoint of this very run, or None to start from the beginning; changes nothing."""
        path = None
        if self.cfg.resume == "auto":
            path = newest(self.folder)
        elif self.cfg.resume != "never":
            path = Path(self.cfg.resume)
            verify(path)
        if path is not None:
            state = read_state(path)
            check_identity(path, state.identity, self.cfg, self._identity)
            if "step" in state.best:
                verify(self.best(state))
        return path

    def best(self, state: TrainState) -> Path:
        """The checkpoint of the best model so far."""
        return checkpoint_path(self.folder, int(state.best["step"]))

    def load_best(self, state: TrainState) -> None:
        """The weights of the best model so far, averaged where they were."""
        path = self.best(state)
        load_weights(path, self.head.model, self.head.own, self.world.rank)
        self.average.load(path, self.world.rank)

    def restore(self, path: Path) -> TrainState:
        """Puts everything back as it was."""
        state = load_checkpoint(path, self.head.model, self.stepper.optimizer, self.world.rank, self.head.own)
        self.head.side.load(path)
        self.average.load(path, self.world.rank)
        if not self.world.is_main:
            state.cost = {}  # rank 0 has what all have spent
        if state.loss_scale:
            self.stepper.loss_scale.load_state_dict(state.loss_scale)
        log.info("resuming from %s (step %d of %d)", path, state.step, self.stepper.total)
        return state

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint and deletes the oldest."""
        state.loss_scale = self.stepper.loss_scale.state_dict()
        state.identity = self._identity
        state.cost = joined(self.world, state.cost)
        self._write_shards()
        rng = self.world.gather_objects(rng_state())  # after it every rank has written

        def extra(path: Path) -> None:
            self.head.side.save(path)
            for file in self._aside.iterdir():
                file.rename(path / file.name)

        def write() -> None:
            model, optimizer, own = self.head.model, self.stepper.optimizer, self.head.own
            save_checkpoint(self.folder, state, model, optimizer, rng, extra, own)
            prune(self.folder, self.cfg.save_keep)

        self.world.on_main(write)

    @property
    def _aside(self) -> Path:
        """Where ranks leave their shards for a checkpoint; `prune` deletes it."""
        return self.folder / ".step-shards.tmp"

    def _write_shards(self) -> None:
        """What each rank alone holds, too much to be gathered by one, and the averaged weights."""
        self.world.on_main(lambda: self._aside.mkdir(parents=True, exist_ok=True))
        if self.head.own:
            save_shard(shard_path(self._aside, self.world.rank), self.head.own, self.stepper.optimizer)
        self.average.save(self._aside, self.world.rank)
        self.head.side.save_shard(self._aside)
