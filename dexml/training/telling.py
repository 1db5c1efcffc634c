"""What a run tells: what it is about to do, and each step on the terminal, in log.txt and in the trackers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from accelerate import Accelerator

from dexml.config import Config
from dexml.session import Session
from dexml.stopwatch import Stopwatch, in_words
from dexml.training.progress import Bar
from dexml.training.step import StepReport

log = logging.getLogger(__name__)


def describe(cfg: Config, session: Session, side: str, peaks: Sequence[float], pace: tuple[int, int]) -> None:
    """Before the first step: what is trained, how long, at which rates, and what chooses the model.

    Args:
        side: name of the label side.
        peaks: the highest learning rate of every group of parameters, those of label weights last.
        pace: points an update, updates an epoch.
    """
    batch, per_epoch = pace
    log.info(
        "training on %d points, %d labels (label_side: %s), batch %d = %d x %d processes x %d",
        len(session.train_rows), session.dataset.n_labels, side, batch, cfg.bsz, session.world.size, cfg.grad_accum,
    )  # fmt: skip
    log.info("%d epochs of %d steps, %s encoder", cfg.num_epochs, per_epoch, session.encoder.precision)
    lr, *_, last = peaks
    log.info("effective learning rate %g (lr %g, lr_scaling %s)", lr, cfg.lr, cfg.lr_scaling)
    if last != lr:
        log.info("effective learning rate of the label weights %g", last)
    if lr > 1e-3 and not cfg.has_bilstm:
        log.warning("a learning rate of %g is high for a transformer: is lr_scaling: none meant?", lr)
    if cfg.select_on_test:
        log.warning("select_on_test: the best model is chosen on the test set; its figures flatter it")
    elif not cfg.num_val_points:
        log.info("num_val_points is 0: no model selection, the last model is the result")


class Teller:
    """Tells of steps on the bar, and every `log_interval` of them in log.txt and the trackers.

    Args:
        processes: of the run; what a step reports is counted on one of them.
        total: steps of the run.
    """

    def __init__(self, cfg: Config, accelerator: Accelerator, watch: Stopwatch, processes: int, total: int) -> None:
        self.cfg, self.accelerator, self.watch, self.processes, self.total = cfg, accelerator, watch, processes, total
        self.lap_began = time.perf_counter()

    def step(self, bar: Bar, report: StepReport, step: int) -> None:
        """What step number `step` gave and cost."""
        pace = {f"{what}/s": n * self.processes / report.seconds for what, n in report.encoded.items()}
        note = f"loss {report.loss:.4f}, " + ", ".join(f"{value:.0f} {what}" for what, value in pace.items())
        bar.tick(note=note)
        if step % self.cfg.log_interval == 0:
            facts = "".join(f", {name} {value:.3g}" for name, value in report.facts.items())
            told = step, self.total, note, report.lr, report.norm, facts
            log.debug("step %d/%d, %s, lr %.3g, gradient %.3g%s", *told)
            numbers = {"loss": report.loss, "lr": report.lr, "grad_norm": report.norm, **pace, **report.facts}
            self.accelerator.log(numbers, step=step)
            self._profile(step)

    def _profile(self, step: int) -> None:
        """Where the time since the last line went."""
        if not self.watch.on:
            return
        now = time.perf_counter()
        shares = self.watch.lap(now - self.lap_began)
        self.lap_began = now
        log.info("profile at step %d, %s", step, in_words(shares))
        self.accelerator.log({f"seconds/{name}": spent for name, spent in shares.items()}, step=step)
