"""A linear one-vs-all classifier on the query embedding: a weight vector for every label (DEXML's dist-clf-net).

Each rank holds, updates and saves only the vectors of its span of the labels. There is no bias: scores are inner
products, so that the vectors are searched, indexed and exported as label embeddings are.

L labels, S of this rank's span, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch
from dexml.data.dataset import Split
from dexml.distributed import GradientReduction, World
from dexml.encoders.text import TextEncoder
from dexml.evaluation.retrieval import Embedder, Retriever
from dexml.heads.base import OFF, Groups, OpenTokens, Prepared, StepStats, decayed, trained
from dexml.heads.batchloss import QUERIES, BatchLoss, Texts
from dexml.hub.bundle import read_embeddings, read_labels
from dexml.stopwatch import Stopwatch

FASTER = 10  # default of clf_lr over lr
BLOCK = 4096  # labels whose random vectors are drawn at a time


class Classifier:
    """Loss and gradients of a global batch, each rank comparing all queries with its own labels."""

    n_texts = 0

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, tokens: OpenTokens, world: World) -> None:
        self.cfg, self.encoder, self.n_labels, self.tokens, self.world = cfg, encoder, n_labels, tokens, world
        self.span = world.span(n_labels)
        like = next(encoder.parameters())
        self.weight_SD = Parameter(like.new_zeros(self.span.stop - self.span.start, encoder.width))

    @property
    def shared(self) -> list[Parameter]:
        return trained(self.encoder)

    @property
    def own(self) -> Mapping[str, Parameter]:
        return {"weight": self.weight_SD}

    def learn_from(self, split: Split) -> None:
        if self.n_labels == 1:
            raise ConfigError("net dist-clf-net tells labels apart: there is only one")
        self.loss = BatchLoss(self.cfg, split, self.world)
        self.side = self.loss.side
        self.query_tokens = self.tokens("trn")
        self.texts = Texts(self.cfg, self.encoder, self.world)

    def fit_structure(self, embedder: Embedder) -> None:
        """Starting weights: what `clf_init` names."""
        if self.cfg.clf_init == "label-text":
            self._set(embedder.part(self.tokens("labels"), np.arange(self.n_labels)))
        elif self.cfg.clf_init == "random":
            self._set(random_rows(self.span, self.encoder.width, self.cfg.seed))

    def param_groups(self) -> Groups:
        lr = self.cfg.clf_lr or FASTER * self.cfg.lr
        labels = {"params": [self.weight_SD], "lr": lr, "weight_decay": self.cfg.weight_decay}
        return [*decayed(self.shared, self.cfg, self.cfg.lr), labels]

    def prepare(self, batch: Batch) -> Prepared:
        cells = self.loss.cells(batch)
        points = batch.points[self.world.span(len(batch.points))]
        queries = self.texts.of(batch, QUERIES, self.query_tokens, points)
        self.texts.keep_what_fits(queries)
        return Prepared(batch, cells, self.side.pool(batch, cells), queries)

    def accumulate(
        self, ready: Prepared, scale: float = 1.0, watch: Stopwatch = OFF, reduction: GradientReduction | None = None
    ) -> StepStats:
        with watch.phase("encode queries"):
            query_BD = ready.queries.embed()
        with watch.phase("loss"):
            result, grad_query = self.loss.of(query_BD, self.weight_SD.detach(), ready)
            self._add_gradient(result.grad_label * scale)
        with watch.phase("backward queries"):
            ready.queries.backward(grad_query * scale, reduction)
        return StepStats(float(result.mean), 0, ready.queries.encoded_tokens)

    def _add_gradient(self, grad_SD: Tensor) -> None:
        if self.weight_SD.grad is None:
            self.weight_SD.grad = grad_SD
        else:
            self.weight_SD.grad.add_(grad_SD)

    def retriever(self, embedder: Embedder) -> Retriever:
        return Retriever(embedder, self.weight_SD.detach().float(), self.n_labels)

    def load_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        known = read_labels(folder)
        other = next((i for i, (a, b) in enumerate(zip(known, label_texts, strict=False)) if a != b), None)
        if other is not None or len(known) != self.n_labels:
            where = f"label {other} is another" if other is not None else f"here are {self.n_labels} labels"
            raise ConfigError(
                f"{folder} is a classifier of {len(known)} labels and predicts no others, but {where}: "
                f"evaluate it on data with the labels it was trained with"
            )
        self._set(torch.from_numpy(read_embeddings(folder, self.span)))

    @torch.no_grad()
    def _set(self, value_SD: Tensor) -> None:
        self.weight_SD.copy_(value_SD)


def random_rows(rows: slice, width: int, seed: int) -> Tensor:
    """Rows of a matrix of labels, normally distributed with an expected length of 1; a row is the same in any slice."""
    first, last = rows.start // BLOCK, -(-rows.stop // BLOCK)
    blocks = [np.random.default_rng([seed, i]).standard_normal((BLOCK, width), np.float32) for i in range(first, last)]
    drawn = np.concatenate([*blocks, np.empty((0, width), np.float32)])
    return torch.from_numpy(drawn[rows.start - first * BLOCK : rows.stop - first * BLOCK] / np.sqrt(width))
