"""The training loop: config in, metrics out.

A step: draw a global batch, let the head add its gradients, sum them over the ranks once, update. Everything drawn is a
function of (seed, epoch, step, point), so a resumed run only needs the number of steps done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dexml.config import Config
from dexml.data.batching import Batch, steps_per_epoch
from dexml.distributed import World, launch
from dexml.encoders.weights import load_weights
from dexml.evaluation.calibration import RIVALS, Calibration
from dexml.evaluation.retrieval import Predictions
from dexml.heads.base import Prepared
from dexml.labels.policy import Shortlist
from dexml.session import Session
from dexml.training.ahead import ahead
from dexml.training.averaging import Average
from dexml.training.batches import Batches
from dexml.training.checkpoint import TrainState
from dexml.training.cost import add_step, told
from dexml.training.log import log_to, start_log
from dexml.training.mining import Miner
from dexml.training.modes import Scored, evaluate_modes
from dexml.training.progress import Bar
from dexml.training.results import calibrate, export, short
from dexml.training.resume import Checkpoints
from dexml.training.rng import seed_rng
from dexml.training.rundir import RunFolder
from dexml.training.selection import select
from dexml.training.stages import upper_levels
from dexml.training.step import Stepper, StepReport, drops_out
from dexml.training.telling import Teller, describe
from dexml.training.trackers import tracker_config, tracker_names
from dexml.training.warmup import warm_up

log = logging.getLogger(__name__)


class Trainer:
    """Trains the model of a config: `Trainer(load_config(["configs/x.yaml"])).fit()` returns the test metrics."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.accelerator = launch(cfg.num_processes, log_with=tracker_names(cfg) or None, project_dir=str(cfg.out_dir))
        self.world = World.of(self.accelerator)
        start_log(self.world.is_main)
        seed_rng(cfg.seed)
        log.info("rank %d of %d on %s", self.world.rank, self.world.size, self.world.device)
        self.folder = RunFolder(cfg)
        self.session = Session(cfg, self.world)

    def fit(self) -> dict[str, Any]:
        """Trains from the start or from the newest checkpoint and returns the test metrics (also in metrics.json)."""
        done = self.world.on_main(self.folder.finished)
        if done is not None:
            log.info("%s is complete; --resume never starts it again", self.folder.path)
            return done
        levels = upper_levels(self.cfg, self.session.dataset.n_labels)
        try:
            if levels:
                self._train_upper(levels)
            self._build()
            self._restore()
            self._train()
            return self._finish()
        finally:
            self.folder.release()

    def _train_upper(self, levels: list[Config]) -> None:
        """Trains the levels above, each as a run of its own in a folder of this one."""
        self.world.on_main(lambda: self.folder.check(0))
        self.world.on_main(self.folder.claim)
        if self.cfg.resume == "never":
            self.world.on_main(self.folder.set_aside)
            self.cfg = self.folder.cfg = self.cfg.model_copy(update={"resume": "auto"})
        for cfg in levels:
            type(self)(cfg).fit()
        start_log(self.world.is_main)
        seed_rng(self.cfg.seed)

    # --- building ---

    def _build(self) -> None:
        """Everything that can be wrong is read and checked before the folder of the run is made."""
        cfg, session = self.cfg, self.session
        self.head = session.head
        bytes_needed = self._bytes_needed()
        self.world.on_main(lambda: self.folder.check(bytes_needed))
        if cfg.resume_path:
            load_weights(session.encoder, Path(cfg.resume_path))
        self.head.learn_from(session.training_split)
        self.miner = Miner(session, self.head.side) if isinstance(self.head.side, Shortlist) else None
        for part in ("labels", "tst"):  # opened by all before rank 0 alone takes the fingerprint
            session.tokens(part)
        self.batch_size = cfg.bsz * self.world.size * cfg.grad_accum
        self.batches = Batches(session, self.batch_size)
        self.per_epoch = steps_per_epoch(len(session.train_rows), self.batch_size)
        self.total = self.per_epoch * cfg.num_epochs
        self.stepper = Stepper(cfg, self.head, self.world, self.total)
        self.average = Average(cfg, self.head, self.per_epoch)
        self.checkpoints = Checkpoints(cfg, self.folder.checkpoints, session, self.stepper, self.average)
        self.resumed = self.world.on_main(self.checkpoints.to_resume)
        self.world.on_main(self._open)
        describe(cfg, session, self.head.side.name, self.stepper.peaks, (self.batch_size, self.per_epoch))

    def _open(self) -> None:
        self.folder.open()
        log_to(self.folder.path / "log.txt")

    def _bytes_needed(self) -> int:
        """Room for checkpoints (12 bytes a weight: itself and two moments, 16 with its average; a bank, shortlists)
        and bundle."""
        weights = sum(p.numel() for p in self.session.encoder.parameters())
        weights += self.world.size * sum(p.numel() for p in self.head.own.values())
        labels = self.session.dataset.n_labels * self.session.encoder.width
        each = (16 if self.cfg.swa_every else 12) * weights + 8 * labels * (self.cfg.resolved_label_side == "bank")
        if self.cfg.resolved_label_side == "shortlist":
            each += 4 * len(self.session.dataset.trn) * self.cfg.hard_neg_topk
        return (self.cfg.save_keep + 4) * each + 8 * labels

    def _restore(self) -> None:
        if self.resumed:
            self.state = self.checkpoints.restore(self.resumed)
        else:
            self.state = TrainState()
            self.head.fit_structure(self.session.embedder())
            if self.cfg.head_epochs:
                warm_up(self.cfg, self.session)
            if not self.cfg.trn_shorty:
                self._mine(0)
        self.batches.group(self.folder.path, bool(self.resumed))
        self.tested: tuple[int, Scored] | None = None
        self.teller = Teller(self.cfg, self.accelerator, self.stepper.watch, self.world.size, self.total)
        self.step_ended = time.perf_counter()
        self.world.on_main(lambda: self.folder.rewind(self.state.step))
        epoch, into = divmod(self.state.step, self.per_epoch)
        if self.resumed and not into:
            self._begin_mining(epoch)

    # --- the loop ---

    def _train(self) -> None:
        cfg, state = self.cfg, self.state
        self.accelerator.init_trackers(cfg.project, config=tracker_config(cfg))
        self.session.encoder.train()
        with Bar("training", self.total, state.step, self.world.is_main) as self.bar:
            while state.step < self.total and not state.stopped:
                epoch, start = divmod(state.step, self.per_epoch)
                batches = self.batches.epoch(epoch, start)
                for ready in self._timed(ahead(batches, self._prepare)):
                    self._step(ready)
                    ended = epoch + 1 if state.step % self.per_epoch == 0 else 0
                    evaluated = bool(ended) and self._end_epoch(ended)
                    if evaluated or (cfg.save_interval and state.step % cfg.save_interval == 0):
                        self.checkpoints.save(state)
                        self.step_ended = time.perf_counter()
                    if ended:
                        self._begin_mining(ended)

    def _prepare(self, batch: Batch) -> list[Prepared]:
        return [self.head.prepare(micro) for micro in batch.split(self.cfg.bsz * self.world.size)]

    def _timed(self, batches: Iterator[list[Prepared]]) -> Iterator[list[Prepared]]:
        """The batches, the time until each is ready being `wait`."""
        while True:
            with self.stepper.watch.phase("wait"):
                ready = next(batches, None)
            if ready is None:
                return
            yield ready

    def _step(self, parts: list[Prepared]) -> None:
        step = self.state.step
        self.session.encoder.train(drops_out(self.cfg.dropout_off_after_step, step % self.per_epoch, self.per_epoch))
        self.average.before(step)
        report = self.stepper.step(parts, self.state)
        self.average.after(step)
        began, self.step_ended = self.step_ended, time.perf_counter()
        add_step(self.state.cost, self.step_ended - began, report.encoded)
        self._tell(report)

    def _tell(self, report: StepReport) -> None:
        self.teller.step(self.bar, report, self.state.step)

    def _end_epoch(self, epoch: int) -> bool:
        """Evaluates and mines when due after `epoch` epochs; True if it did."""
        self._mine(epoch)
        due = epoch % self.cfg.eval_interval == 0 or epoch == self.cfg.num_epochs
        if due:
            self._evaluate(epoch)
        return due

    def _mine(self, epoch: int) -> None:
        if self.miner is not None:
            self.miner.mine(epoch)

    def _begin_mining(self, epoch: int) -> None:
        if self.miner is not None and not self.state.stopped:
            self.miner.begin(epoch)

    # --- evaluation ---

    @property
    def _watched(self) -> str:
        """The split evaluated during training; only `val`, or `tst` if asked for, chooses the model."""
        return "val" if self.cfg.num_val_points else "tst"

    def _evaluate(self, epoch: int) -> None:
        cfg, state, split, began = self.cfg, self.state, self._watched, time.perf_counter()
        with self.average.installed():
            metrics, predictions = self.session.evaluate(split)[split]
        if split == "tst":
            self.tested = state.step, (metrics, predictions)
        selects = bool(cfg.num_val_points) or cfg.select_on_test
        better = selects and select(state, metrics[cfg.track_metric], cfg.early_stop)
        self._record(epoch, split, metrics, time.perf_counter() - began, better)
        if state.stopped:
            left = f"no better {cfg.track_metric} in {state.stale} evaluations"
            log.info("%s: training stops after epoch %d of %d", left, epoch, cfg.num_epochs)
        if cfg.save and (better or not selects):
            self._save_scores(split, predictions)

    def _record(self, epoch: int, split: str, metrics: dict[str, Any], seconds: float, better: bool) -> None:
        """An evaluation in the log, the trackers and metrics.jsonl; what is counted between two starts anew."""
        state = self.state
        loss = state.loss_sum / max(1, state.loss_count)
        cost = told(self.world, state.cost, seconds)
        state.loss_sum, state.loss_count, state.cost = 0.0, 0, {}
        entry = {"split": split, "epoch": epoch, "step": state.step, "loss": loss, **metrics, **cost}
        mark = " (best)" * better
        log.info("epoch %d/%d, loss %.4f, %s: %s%s", epoch, self.cfg.num_epochs, loss, split, short(metrics), mark)
        numbers = {f"{split}/{name}": value for name, value in metrics.items() if "@" in name}
        self.accelerator.log(numbers, step=state.step)
        self.world.on_main(lambda: self.folder.record(entry))

    def _save_scores(self, split: str, predictions: Predictions) -> None:
        scores = predictions.to_csr(self.session.dataset.n_labels)
        self.world.on_main(lambda: self.folder.write_scores(split, scores))

    # --- the end ---

    def _finish(self) -> dict[str, Any]:
        cfg, state = self.cfg, self.state
        found = self._test_best()
        metrics, predictions = found["tst"][cfg.predict_mode]
        ran = {"epochs": state.step // self.per_epoch, "steps": state.step, "stopped_early": state.step < self.total}
        chosen = {"chosen_on": self._watched, "chosen_step": int(state.best["step"])} if state.best else {}
        metrics = {**metrics, **ran, **chosen}
        log.info("test: %s", short(metrics))
        if cfg.save:
            self._save_scores("tst", predictions)
            export(self.session, self.folder, self._calibration(found.get("val")))
        self.accelerator.log({f"test/{name}": value for name, value in metrics.items() if "@" in name})
        self.world.on_main(lambda: self.folder.finish(metrics))
        for tracker in self.accelerator.trackers:  # end_training would also end the process group
            tracker.finish()
        return metrics

    def _calibration(self, found: dict[str, Scored] | None) -> Calibration | None:
        """From the predictions of the validation points; also written into the folder."""
        calibration = None
        if found is not None:
            points, lists = self.session.points("val"), found["labels"][1]
            if lists.ids.shape[1] < RIVALS:
                lists = self.session.retrieve().search(points.tokens, points.rows, RIVALS, points.filters)
            calibration = calibrate(points, lists)
        self.world.on_main(lambda: self.folder.write_calibration(calibration))
        return calibration

    def _test_best(self) -> dict[str, dict[str, Scored]]:
        """Loads the chosen model, the last one if none was chosen, and tests it unless that has just been done."""
        cfg, step = self.cfg, int(self.state.best.get("step", self.state.step))
        if step != self.state.step:
            self.checkpoints.load_best(self.state)
        self.average.install()
        if self.tested is not None and self.tested[0] == step and cfg.predict_mode == "labels":
            return {"tst": {"labels": self.tested[1]}}
        splits = ["tst", *["val"] * bool(cfg.num_val_points and cfg.save)]
        return evaluate_modes(self.session, splits, cfg.predict_mode)
