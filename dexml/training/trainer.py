"""The training loop: config in, metrics out.

A step: draw a global batch, let the head add its gradients, sum them over the ranks once, update. Everything drawn is a
function of (seed, epoch, step, point), so a resumed run only needs the number of steps done.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from scipy.sparse import save_npz

from dexml.config import Config
from dexml.data.batching import Batch, epoch_batches, steps_per_epoch
from dexml.data.tokenizer import load_tokenizer
from dexml.distributed import World, launch
from dexml.encoders.encoder import Encoder
from dexml.encoders.weights import load_weights
from dexml.heads.dual import DualEncoder, StepStats
from dexml.hub.bundle import fill_bundle
from dexml.labels.policy import Shortlist, make_label_side
from dexml.session import Session
from dexml.training.checkpoint import (
    CheckpointError,
    TrainState,
    checkpoints,
    load_checkpoint,
    newest,
    prune,
    rng_state,
    save_checkpoint,
    verify,
    write_directory,
)
from dexml.training.optim import LossScale, clip_, effective_lr, make_optimizer, schedule, set_lr
from dexml.training.progress import Bar, clock
from dexml.training.rundir import RunFolder, log_to, start_log

log = logging.getLogger(__name__)
ZERO_LOSSES = 100  # steps in a row with a loss of exactly 0 before training stops


class Trainer:
    """Trains a dual encoder: `Trainer(load_config(["configs/x.yaml"])).fit()` returns the test metrics."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        trackers = [] if cfg.tracker == "none" else [name.strip() for name in cfg.tracker.split(",")]
        self.accelerator = launch(cfg.num_processes, log_with=trackers or None, project_dir=str(cfg.out_dir))
        self.world = World.of(self.accelerator)
        start_log(self.world.is_main)
        log.info("rank %d of %d on %s", self.world.rank, self.world.size, self.world.device)
        self.folder = RunFolder(cfg)
        self.session = Session(cfg, self.world)

    def fit(self) -> dict[str, Any]:
        """Trains from the start or from the newest checkpoint and returns the test metrics (also in metrics.json)."""
        done = self.world.on_main(self.folder.finished)
        if done is not None:
            log.info("%s is complete; --resume never starts it again", self.folder.path)
            return done
        self._build()
        self._restore()
        self._train()
        return self._finish()

    # --- building ---

    def _build(self) -> None:
        cfg, session = self.cfg, self.session
        encoder = session.encoder
        bytes_needed = (cfg.save_keep + 3) * 12 * sum(p.numel() for p in encoder.parameters())
        self.world.on_main(lambda: self.folder.open(bytes_needed))
        if self.world.is_main:
            log_to(self.folder.path / "log.txt")
        if cfg.resume_path:
            load_weights(encoder, Path(cfg.resume_path))
        side = make_label_side(cfg, session.dataset.trn.relevance.shape)
        tokens = session.tokens("trn"), session.tokens("labels")
        self.head = DualEncoder(cfg, encoder, session.dataset.trn, *tokens, side, self.world)
        self.parameters = [p for p in encoder.parameters() if p.requires_grad]
        self.lr = effective_lr(cfg, self.world.size)
        self.optimizer = make_optimizer(cfg, encoder, self.lr)
        self.loss_scale = LossScale(on=encoder.precision == "fp16")
        self.batch_size = cfg.bsz * self.world.size * cfg.grad_accum
        self.per_epoch = steps_per_epoch(len(session.train_rows), self.batch_size)
        self.total = self.per_epoch * cfg.num_epochs
        self._describe()

    def _describe(self) -> None:
        cfg, rows = self.cfg, len(self.session.train_rows)
        log.info(
            "training on %d points, %d labels (label_side: %s), batch %d = %d x %d processes x %d",
            rows, self.session.dataset.n_labels, self.head.side.name, self.batch_size, cfg.bsz, self.world.size,
            cfg.grad_accum,
        )  # fmt: skip
        log.info("%d epochs of %d steps, %s encoder", cfg.num_epochs, self.per_epoch, self.session.encoder.precision)
        log.info("effective learning rate %g (lr %g, lr_scaling %s)", self.lr, cfg.lr, cfg.lr_scaling)
        if self.lr > 1e-3:
            log.warning("a learning rate of %g is high for a transformer: is lr_scaling: none meant?", self.lr)
        if cfg.select_on_test:
            log.warning("select_on_test: the best model is chosen on the test set; its figures flatter it")
        elif not cfg.num_val_points:
            log.info("num_val_points is 0: no model selection, the last model is the result")

    # --- state ---

    @property
    def _identity(self) -> dict[str, Any]:
        return {"config": self.cfg.to_dict(), "data": self.session.fingerprint, "processes": self.world.size}

    def _restore(self) -> None:
        self.state = TrainState()
        path = self.world.on_main(self._checkpoint_to_resume)
        if path is not None:
            self.state = load_checkpoint(path, self.session.encoder, self.optimizer, self.world.rank)
            self._check_identity(path)
            self.head.side.load(path)
            if self.state.loss_scale:
                self.loss_scale.load_state_dict(self.state.loss_scale)
            log.info("resuming from %s (step %d of %d)", path, self.state.step, self.total)
        if self.world.is_main:
            self.folder.rewind(self.state.step)

    def _checkpoint_to_resume(self) -> Path | None:
        if self.cfg.resume == "never":
            return None
        if self.cfg.resume == "auto":
            return newest(self.folder.checkpoints)
        verify(Path(self.cfg.resume))
        return Path(self.cfg.resume)

    def _check_identity(self, path: Path) -> None:
        before, now = self.state.identity, self._identity
        keys = self.cfg.changed(Config(**before["config"]))
        if keys:
            raise CheckpointError(f"{path} was written with other settings of {', '.join(keys)}")
        if before["data"] != now["data"]:
            raise CheckpointError(f"{path}: the training data have changed since; start over with --resume never")
        if before["processes"] != now["processes"]:
            raise CheckpointError(
                f"{path} was written by {before['processes']} processes, these are {now['processes']}: "
                f"use as many, or start over with --resume never"
            )

    def _save(self) -> None:
        self.state.loss_scale = self.loss_scale.state_dict()
        self.state.identity = self._identity
        rng = self.world.gather_objects(rng_state())

        def write() -> None:
            save_checkpoint(
                self.folder.checkpoints, self.state, self.session.encoder, self.optimizer, rng, self.head.side.save
            )
            best = self.state.best.get("step")
            prune(self.folder.checkpoints, self.cfg.save_keep, None if best is None else int(best))

        self.world.on_main(write)

    # --- the loop ---

    def _train(self) -> None:
        cfg, state = self.cfg, self.state
        self.accelerator.init_trackers(cfg.project, config=_flat(cfg.to_dict()))
        self.session.encoder.train()
        self.bar = Bar("training", self.total, state.step, self.world.is_main)
        while state.step < self.total:
            epoch, start = divmod(state.step, self.per_epoch)
            for batch in epoch_batches(self.session.train_rows, self.batch_size, cfg.seed, epoch, start):
                self._step(batch)
                ended = epoch + 1 if state.step % self.per_epoch == 0 else 0
                evaluated = bool(ended) and self._end_epoch(ended)
                if evaluated or (cfg.save_interval and state.step % cfg.save_interval == 0):
                    self._save()
        self.bar.close()

    def _step(self, batch: Batch) -> None:
        began, state = time.perf_counter(), self.state
        set_lr(self.optimizer, self.lr * schedule(state.updates, self.total, self.cfg.warmup))
        loss, labels, tokens = 0.0, 0, 0
        for micro in batch.split(self.cfg.bsz * self.world.size):
            share = len(micro.points) / len(batch.points)
            stats: StepStats = self.head.accumulate(micro, share * self.loss_scale.value)
            loss, labels, tokens = loss + share * stats.loss, labels + stats.labels, tokens + stats.tokens
        self._check_loss(loss)
        self.world.sum_gradients_(self.parameters)
        norm = self._update()
        state.step += 1
        state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
        seconds = time.perf_counter() - began
        pace = {"labels/s": labels / seconds, "tokens/s": tokens * self.world.size / seconds}
        self.bar.tick(note=f"loss {loss:.4f}, {pace['labels/s']:.0f} labels/s, {pace['tokens/s']:.0f} tokens/s")
        if state.step % self.cfg.log_interval == 0:
            lr = self.optimizer.param_groups[0]["lr"]
            self.accelerator.log({"loss": loss, "lr": lr, "grad_norm": norm, **pace}, step=state.step)

    def _update(self) -> float:
        """Unscales, clips and applies the summed gradient; returns its length."""
        if self.loss_scale.on:
            for p in self.parameters:
                p.grad.div_(self.loss_scale.value)  # type: ignore[union-attr]
        norm = float(clip_(self.parameters, self.cfg.max_grad_norm))
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
            self.state.updates += 1
        elif not self.loss_scale.on:
            raise FloatingPointError(f"step {self.state.step}: the gradient is not finite; nothing was updated")
        self.loss_scale.update(finite)
        self.optimizer.zero_grad()
        return norm

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {self.state.step}: the loss is {loss}; nothing was updated")
        self.state.zero_losses = self.state.zero_losses + 1 if loss == 0 else 0
        if self.state.zero_losses == ZERO_LOSSES:
            raise FloatingPointError(f"the loss was exactly 0 for {ZERO_LOSSES} steps: do all points have the same labels?")

    def _end_epoch(self, epoch: int) -> bool:
        """Evaluates and mines when due after `epoch` epochs; True if it did."""
        cfg = self.cfg
        due = epoch % cfg.eval_interval == 0 or epoch == cfg.num_epochs
        mine = isinstance(self.head.side, Shortlist) and epoch >= cfg.hard_neg_start
        if mine and (due or epoch == cfg.hard_neg_start) and epoch < cfg.num_epochs:
            self._mine()
        if due:
            self._evaluate(epoch)
        return due

    # --- evaluation ---

    @property
    def _watched(self) -> str:
        """The split evaluated during training; only `val`, or `tst` if asked for, chooses the model."""
        return "val" if self.cfg.num_val_points else "tst"

    def _evaluate(self, epoch: int) -> None:
        cfg, state, split = self.cfg, self.state, self._watched
        if split == "tst" and not cfg.select_on_test and epoch == cfg.num_epochs:
            return  # the test figures of the last model follow at once
        metrics, predictions = self.session.evaluate(split)[split]
        loss = state.loss_sum / max(1, state.loss_count)
        state.loss_sum, state.loss_count = 0.0, 0
        entry = {"split": split, "epoch": epoch, "step": state.step, "loss": loss, **metrics}
        value = metrics[cfg.track_metric]
        selects = bool(cfg.num_val_points) or cfg.select_on_test
        better = selects and value > state.best.get("value", -math.inf)
        if better:
            state.best = {"value": value, "step": state.step}
        log.info("epoch %d/%d, loss %.4f, %s: %s%s", epoch, cfg.num_epochs, loss, split, _short(metrics), " (best)" * better)
        numbers = {f"{split}/{name}": value for name, value in metrics.items() if "@" in name}
        self.accelerator.log(numbers, step=state.step)
        if self.world.is_main:
            self.folder.record(entry)
            if cfg.save and (better or not selects):
                self._save_scores(split, predictions)

    def _save_scores(self, split: str, predictions: Any) -> None:
        file = self.folder.path / f"{split}_score_mat.npz"
        partial = file.with_name(f".{file.name}.tmp.npz")
        save_npz(partial, predictions.to_csr(self.session.dataset.n_labels))
        partial.replace(file)

    def _mine(self) -> None:
        """A new shortlist for every training point: its nearest labels without its positives and filtered cells."""
        trn = self.session.dataset.trn
        known = trn.relevance.astype(bool)
        if trn.filters is not None:
            known = known + trn.filters.astype(bool)
        retriever = self.session.retrieve()
        k = min(self.cfg.hard_neg_topk, self.session.dataset.n_labels)
        found = retriever.search(self.session.tokens("trn"), torch.arange(len(trn)).numpy(), k, known.tocsr())
        self.head.side.set_lists(found.ids, self.state.step, trn.relevance.shape)  # type: ignore[attr-defined]
        log.info("mined a shortlist of %d labels a point after step %d", k, self.state.step)

    # --- the end ---

    def _finish(self) -> dict[str, Any]:
        cfg, session = self.cfg, self.session
        if "step" in self.state.best and self.state.best["step"] != self.state.step:
            best = self.folder.checkpoints / f"step-{int(self.state.best['step']):08d}"
            session.encoder.load_state_dict(load_file(best / "model.safetensors"))
        metrics, predictions = session.evaluate("tst")["tst"]
        chosen = {"chosen_on": self._watched, "chosen_step": int(self.state.best["step"])} if self.state.best else {}
        metrics = {**metrics, "epochs": cfg.num_epochs, "steps": self.state.step, **chosen}
        log.info("test: %s", _short(metrics))
        embeddings = session.retrieve().all_labels() if cfg.save else None
        if self.world.is_main:
            self._write_result(metrics, predictions, embeddings)
        self.accelerator.log({f"test/{name}": value for name, value in metrics.items() if "@" in name})
        self.accelerator.end_training()
        self.world.barrier()
        return metrics

    def _write_result(self, metrics: dict[str, Any], predictions: Any, embeddings: torch.Tensor | None) -> None:
        cfg, session = self.cfg, self.session
        if embeddings is not None:
            self._save_scores("tst", predictions)
            encoder = Encoder(session.encoder, load_tokenizer(cfg.tokenizer_name), cfg.tf_max_len)
            texts = session.dataset.label_texts
            write_directory(self.folder.best, lambda p: fill_bundle(p, encoder, texts, embeddings.numpy(), cfg))
            log.info("bundle: %s", self.folder.best)
        else:
            shutil.rmtree(self.folder.checkpoints)
        self.folder.finish(metrics)


def _short(metrics: dict[str, Any]) -> str:
    names = [n for n in ("P@1", "P@3", "P@5", "nDCG@5", "PSP@5", "R@10", "R@100") if n in metrics]
    return ", ".join(f"{name} {metrics[name]:.2f}" for name in names)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, int | float | str | bool) else str(value) for key, value in values.items()}
