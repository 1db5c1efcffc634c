"""What a head is: it learns from the training points how texts and labels belong together, and finds labels of texts.

Trainer, checkpoints, evaluation and export know no more of a head than is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch.nn import Module, Parameter

from dexml.config import Config
from dexml.data.batching import Batch, Ints
from dexml.data.dataset import Split
from dexml.data.tokens import Tokens
from dexml.distributed import GradientReduction
from dexml.encoders.text import TextEncoder
from dexml.evaluation.retrieval import Embedder, Finder
from dexml.labels.gradcache import TextSide
from dexml.labels.policy import LabelSide
from dexml.labels.positives import Cells
from dexml.stopwatch import Stopwatch

OpenTokens = Callable[[str], Tokens]
"""The token store of `trn` or `labels`; the first to ask has it made, so every rank asks in the same order."""
Groups = list[dict[str, Any]]
"""Parameter groups of an optimiser; `lr` is the peak rate before `lr_scaling`."""
BundleWriter = Callable[[Path, Mapping[str, str]], None]
"""Writes what a head keeps in a bundle, given its folder and the SHA-256 of the files that are there already."""
OFF = Stopwatch()


@dataclass(frozen=True)
class Prepared:
    """All of a batch that can be made ready before its step: it depends on no weights."""

    batch: Batch
    queries: TextSide

    @property
    def terms(self) -> int:
        """What the loss of the batch is a mean over, of this rank; only ratios between batches matter."""
        return len(self.batch.points)


@dataclass(frozen=True)
class PreparedPool(Prepared):
    """A batch that is compared with the labels of a pool."""

    cells: Cells
    pool: Ints


@dataclass(frozen=True)
class StepStats:
    """What a step cost and gave; counts are of this rank."""

    loss: float
    """Mean over the global batch."""
    labels: int
    tokens: int
    facts: Mapping[str, float] = field(default_factory=dict)
    """what else the log tells of the step, of all ranks"""


class Head(Protocol):
    """A model on top of the text encoder. Made for prediction; `learn_from` makes it ready to be trained."""

    encoder: TextEncoder
    side: LabelSide
    """which labels a step compares with, after `learn_from`; its memory goes into checkpoints"""

    @property
    def model(self) -> Module:
        """What every rank holds: the encoder, with what stands beside it."""

    @property
    def shared(self) -> list[Parameter]:
        """Parameters that every rank holds: a step leaves this rank's part of their gradient, the sum is to be taken.

        In the order in which a `GradientReduction` counts them.
        """

    @property
    def own(self) -> Mapping[str, Parameter]:
        """Parameters that this rank alone holds: a step leaves their whole gradient. The same names on every rank."""

    @property
    def n_texts(self) -> int:
        """Label texts that `retriever` embeds."""

    @property
    def score_tau(self) -> float | None:
        """What scores are divided by to be logits; None: they are probabilities."""

    def learn_from(self, split: Split) -> None:
        """Takes the training points and opens the texts that it needs.

        Raises:
            ConfigError, DataError: nothing can be learnt from them with this config.
        """

    def fit_structure(self, embedder: Embedder) -> None:
        """Works out what stands before the first step; a resumed run loads it from its checkpoint instead."""

    def param_groups(self) -> Groups:
        """Groups of all parameters that are trained, those of `own` last."""

    def prepare(self, batch: Batch) -> Prepared:
        """What `accumulate` takes; may run in another thread while a step is under way."""

    def accumulate(
        self, ready: Any, scale: float = 1.0, watch: Stopwatch = OFF, reduction: GradientReduction | None = None
    ) -> StepStats:
        """Adds `scale` times the gradient of the batch's mean loss to `.grad`, the loss being a sum over the global
        batch divided by its size.

        With `reduction` nothing is added after this, and the sum of the shared part may begin.
        """

    def retriever(self, embedder: Embedder) -> Finder:
        """Exact search for the best labels with the weights as they are now; of equals the smaller id first."""

    def bundle(self, embedder: Embedder) -> BundleWriter:
        """Gathers over the ranks what a bundle keeps beside the encoder; rank 0 writes it."""

    def load_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        """Reads what the bundle in `folder` holds beside the encoder, to predict labels of these texts.

        Raises:
            ConfigError: these are not labels that it could predict.
        """


def trained(encoder: TextEncoder) -> list[Parameter]:
    """The parameters of an encoder that are trained, in the order that `TextSide.backward` tells of."""
    return [p for p in encoder.parameters() if p.requires_grad]


def decayed(parameters: Iterable[Parameter], cfg: Config, lr: float) -> Groups:
    """Two groups of those that are trained: weight decay on matrices, none on biases, norms and other vectors."""
    parameters = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "lr": lr, "weight_decay": cfg.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "lr": lr, "weight_decay": 0.0},
    ]
