"""A bank with an embedding of every label, of which a step makes few anew; each rank holds its span of the rows.

The loss compares with all rows. Gradients of labels not encoded in a step are stood for by those going round, wait for
their turn or are lost (`bank_grad`); rows not made anew are moved as the others have moved (`Drift`). A negative cache
(Lindgren et al., NeurIPS 2021) with exact loss, all positives and label gradients.

S labels of this rank's span, L of all, F fresh labels, D embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dexml.config import Config
from dexml.data.batching import Batch, Ints
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.encoders.text import TextEncoder
from dexml.labels.bankbudget import Round, heaviest
from dexml.labels.drift import Drift
from dexml.labels.policy import LabelSide
from dexml.labels.positives import Cells

Masses = Callable[[], Tensor]
"""How much the loss pulls at each label of this rank [S], worked out when asked for."""


@dataclass(frozen=True)
class Fresh:
    """The labels that a step encodes, the same on every rank."""

    ids: Ints
    """[F] ascending"""
    weights: NDArray[np.float64]
    """[F] how many labels each stands for in the gradient"""


class Bank(LabelSide):
    """Rows of this rank and how they are kept near the present.

    Args:
        encoder: what the rows are embeddings of.
    """

    name = "bank"

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, world: World) -> None:
        self.cfg, self.encoder, self.n_labels, self.world = cfg, encoder, n_labels, world
        self.budget = max(1, round(cfg.bank_budget * n_labels))
        self.span = world.span(n_labels)
        like, size = next(encoder.parameters()).detach(), self.span.stop - self.span.start
        stored = torch.bfloat16 if cfg.bank_dtype == "bf16" else like.dtype
        self.vectors_SD = like.new_zeros((size, encoder.width), dtype=stored)
        self.age_S = torch.zeros(size, dtype=torch.int32, device=like.device)
        self.owed_SD = like.new_zeros((size, encoder.width)) if cfg.bank_grad == "delayed" else None
        self.round = Round(n_labels, cfg.seed)
        kernel = cfg.bank_correction == "kernel"
        self.drift = Drift(encoder.width, kernel, encoder.normalize, like) if cfg.bank_correction != "none" else None
        self.facts: dict[str, float] = {}
        """what the last step found: ages, drift and the share of the gradient that was applied at once"""
        self._all = np.arange(n_labels)

    def pool(self, batch: Batch, cells: Cells) -> Ints:
        return self._all

    def fill(self, vectors_SD: Tensor) -> None:
        """Takes embeddings of all labels of this rank."""
        self.vectors_SD.copy_(vectors_SD)
        self.age_S.zero_()

    # --- a step ---

    def choose(self, positives: Ints, masses: Masses) -> Fresh:
        """Labels to encode: the positives of the batch, those the loss pulls at most, and the next of the round."""
        if self.budget >= self.n_labels:
            return Fresh(self._all, np.ones(self.n_labels))
        mined = round(self.cfg.bank_mined * max(0, self.budget - len(positives)))
        if mined:
            mass = masses()
            mass[self._mine(positives)[1]] = 0
            positives = np.union1d(positives, heaviest(mass, mined, self.span.start, self.world))
        others = self.round.take(max(0, self.budget - len(positives)), positives)
        share = (self.n_labels - len(positives)) / max(1, len(others)) if self.cfg.bank_grad == "weighted" else 1.0
        ids = np.concatenate([positives, others])
        order = np.argsort(ids)
        return Fresh(ids[order], np.where(order < len(positives), 1.0, share))

    def renew(self, ids: Ints, fresh_FD: Tensor) -> None:
        """Writes embeddings made now, the same on every rank, after the other rows have been moved towards now."""
        here, at = self._mine(ids)
        if self.drift is not None and len(ids) < self.n_labels:
            old_FD = torch.zeros_like(fresh_FD)
            old_FD[here] = self.vectors_SD[at].to(fresh_FD.dtype)
            self.drift.learn(self.world.sum_(old_FD), fresh_FD)
            self.drift.move_(self.vectors_SD)
        self.vectors_SD[at] = fresh_FD[here].to(self.vectors_SD.dtype)
        self.age_S[at] = 0

    def due(self, fresh: Fresh, grad_SD: Tensor) -> Tensor:
        """From the gradient of this rank's rows, this rank's part [F, D] of what to push through the encoder now."""
        here, at = self._mine(fresh.ids)
        self._measure(grad_SD, at)
        due_FD = grad_SD.new_zeros((len(fresh.ids), grad_SD.shape[1]))
        if self.owed_SD is not None:
            self.owed_SD += grad_SD
            due_FD[here] = self.owed_SD[at]
            self.owed_SD[at] = 0
        else:
            weights = torch.from_numpy(fresh.weights).to(grad_SD)
            due_FD[here] = grad_SD[at] * weights[here, None]
        self.age_S += 1
        return due_FD

    def _mine(self, ids: Ints) -> tuple[slice, Tensor]:
        """Which of ascending `ids` are this rank's, and their rows."""
        first, last = np.searchsorted(ids, [self.span.start, self.span.stop]).tolist()
        rows = torch.from_numpy(ids[first:last] - self.span.start)
        return slice(first, last), rows.to(self.vectors_SD.device)

    def _measure(self, grad_SD: Tensor, at: Tensor) -> None:
        mass_S, ages = torch.linalg.vector_norm(grad_SD, dim=1).double(), self.age_S.double()
        oldest = ages.max() if len(ages) else ages.sum()
        ranks = self.world.gather(torch.stack([mass_S[at].sum(), mass_S.sum(), ages.sum(), oldest]))
        now, whole, age = ranks[:, :3].sum(0).tolist()
        self.facts = {"age": age / self.n_labels, "oldest": float(ranks[:, 3].max())}
        self.facts["gradient now"] = now / whole if whole else 1.0
        if self.drift is not None:
            self.facts |= {"drift": self.drift.before, "corrected": self.drift.after}

    # --- checkpoints ---

    def save_shard(self, folder: Path) -> None:
        save_file(self._state(), _file(folder, self.world), {"encoder": weights_digest(self.encoder)})

    def load(self, folder: Path) -> None:
        """DataError if there is no bank or it is not one of this encoder and these labels."""
        path, state = _file(folder, self.world), self._state()
        if not path.exists():
            raise DataError(f"{path} is missing: start over with --resume never")
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            wanted = {name: tuple(value.shape) for name, value in state.items()}
            if shapes != wanted:
                raise DataError(f"{path} is a bank of other labels or settings: {shapes} instead of {wanted}")
            if file.metadata()["encoder"] != weights_digest(self.encoder):
                raise DataError(f"{path} is the bank of another model than the checkpoint beside it")
            for name, value in state.items():
                value.copy_(file.get_tensor(name))
        self.round.next = int(state["round"])

    def _state(self) -> dict[str, Tensor]:
        state = {"vectors": self.vectors_SD, "age": self.age_S, "round": torch.tensor(self.round.next)}
        if self.owed_SD is not None:
            state["owed"] = self.owed_SD
        return state | (self.drift.state() if self.drift is not None else {})


def weights_digest(encoder: TextEncoder) -> str:
    """Tells the weights of one encoder from those of another."""
    digest = hashlib.sha256()
    for p in encoder.parameters():
        digest.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file(folder: Path, world: World) -> Path:
    return folder / f"bank-{world.rank}.safetensors"
