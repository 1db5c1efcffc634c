"""A linear one-vs-all classifier on the query embedding: a weight vector for every label (DEXML's dist-clf-net).

There is no bias: scores are inner products, so that the vectors are searched, indexed and exported as label embeddings
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from torch.nn import Module, Parameter

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.data.dataset import Split
from dexml.distributed import GradientReduction, World
from dexml.encoders.text import TextEncoder
from dexml.evaluation.retrieval import Embedder, Retriever
from dexml.heads.base import OFF, BundleWriter, Groups, OpenTokens, PreparedPool, StepStats, decayed, trained
from dexml.heads.batchloss import QUERIES, BatchLoss, Texts
from dexml.heads.rows import LabelRows, random_rows
from dexml.hub.bundle import EMBEDDINGS, vectors_writer
from dexml.labels.policy import make_label_side
from dexml.stopwatch import Stopwatch


class Classifier:
    """Loss and gradients of a global batch, each rank comparing all queries with its own labels."""

    n_texts = 0

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, tokens: OpenTokens, world: World) -> None:
        self.cfg, self.encoder, self.n_labels, self.tokens, self.world = cfg, encoder, n_labels, tokens, world
        self.rows = LabelRows(cfg, encoder, n_labels, world)

    @property
    def model(self) -> Module:
        return self.encoder

    @property
    def score_tau(self) -> float:
        return self.cfg.tau

    @property
    def shared(self) -> list[Parameter]:
        return trained(self.encoder)

    @property
    def own(self) -> Mapping[str, Parameter]:
        return self.rows.own

    def learn_from(self, split: Split) -> None:
        self.rows.check()
        self.loss = BatchLoss(self.cfg, split, self.world, make_label_side(self.cfg, split, self.world))
        self.side = self.loss.side
        self.query_tokens = self.tokens("trn")
        self.texts = Texts(self.cfg, self.encoder, self.world)

    def fit_structure(self, embedder: Embedder) -> None:
        """Starting weights: what `clf_init` names."""
        if self.cfg.clf_init == "label-text":
            self.rows.set(embedder.part(self.tokens("labels"), np.arange(self.n_labels)))
        elif self.cfg.clf_init == "random":
            self.rows.set(random_rows(self.rows.span, self.encoder.width, self.cfg.seed))

    def param_groups(self) -> Groups:
        return decayed(self.shared, self.cfg, self.cfg.lr) + self.rows.groups()

    def prepare(self, batch: Batch) -> PreparedPool:
        cells = self.loss.cells(batch)
        points = batch.points[self.world.span(len(batch.points))]
        queries = self.texts.of(batch, QUERIES, self.query_tokens, points)
        self.texts.keep_what_fits(queries)
        return PreparedPool(batch, queries, cells, self.side.pool(batch, cells))

    def accumulate(
        self,
        ready: PreparedPool,
        scale: float = 1.0,
        watch: Stopwatch = OFF,
        reduction: GradientReduction | None = None,
    ) -> StepStats:
        with watch.phase("encode queries"):
            query_BD = ready.queries.embed()
        with watch.phase("loss"):
            result, grad_query = self.loss.of(query_BD, self.rows.weight_SD.detach(), ready)
            self.rows.add_gradient(result.grad_label * scale)
        with watch.phase("backward queries"):
            ready.queries.backward(grad_query * scale, reduction)
        return StepStats(float(result.mean), 0, ready.queries.encoded_tokens)

    def retriever(self, embedder: Embedder) -> Retriever:
        return Retriever(embedder, self.rows.weight_SD.detach().float(), self.n_labels)

    def bundle(self, embedder: Embedder) -> BundleWriter:
        return vectors_writer(self.retriever(embedder).write(self.cfg.out_dir / f".{EMBEDDINGS}.tmp"))

    def load_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        self.rows.read_bundle(folder, label_texts)
