"""The dual encoder as a head: its "parameters" are the label texts, sent through the same encoder as the queries."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import Embedding, Module, Parameter

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.data.dataset import Split
from dexml.distributed import GradientReduction, World
from dexml.encoders.text import TextEncoder
from dexml.evaluation.retrieval import Embedder, Retriever
from dexml.heads.base import OFF, BundleWriter, Groups, OpenTokens, PreparedPool, StepStats, decayed, trained
from dexml.heads.batchloss import LABELS, QUERIES, BatchLoss, Texts
from dexml.hub.bundle import EMBEDDINGS, vectors_writer
from dexml.labels.advice import Load, advice
from dexml.labels.correction import LogQ
from dexml.labels.gradcache import TextSide
from dexml.labels.policy import LabelSide, make_label_side
from dexml.stopwatch import Stopwatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedTexts(PreparedPool):
    labels: TextSide


class DualEncoder:
    """Loss and gradients of a global batch, each rank encoding its part of the queries and of the labels."""

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, tokens: OpenTokens, world: World) -> None:
        self.cfg, self.encoder, self.n_texts, self.tokens, self.world = cfg, encoder, n_labels, tokens, world

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
        return {}

    def learn_from(self, split: Split) -> None:
        self.loss = BatchLoss(self.cfg, split, self.world, self._label_side(split))
        self.side = self.loss.side
        self.query_tokens, self.label_tokens = self.tokens("trn"), self.tokens("labels")
        self.texts = Texts(self.cfg, self.encoder, self.world)
        log.info("%s", advice(self._load(split), self.side.name, self.world.size))

    def _load(self, split: Split) -> Load:
        """What a step has to do, for the advice."""
        cfg, n_labels = self.cfg, split.relevance.shape[1]
        queries = min(cfg.bsz * self.world.size, split.relevance.shape[0])
        positives = LogQ(split.relevance, cfg.loss_sample).expected(queries)
        label, query = (
            float(cfg.tf_max_len if tokens.lengths is None else tokens.lengths.mean())
            for tokens in (self.label_tokens, self.query_tokens)
        )
        tables = {id(module.weight) for module in self.encoder.modules() if isinstance(module, Embedding)}
        weights = sum(p.numel() for p in self.encoder.parameters() if id(p) not in tables)
        mined, budget = queries * cfg.num_neg_samples, round(cfg.bank_budget * n_labels)
        return Load(n_labels, queries, positives, mined, budget, label, query, weights, self.encoder.width)

    def _label_side(self, split: Split) -> LabelSide:
        return make_label_side(self.cfg, split, self.world)

    def fit_structure(self, embedder: Embedder) -> None: ...

    def param_groups(self) -> Groups:
        return decayed(self.shared, self.cfg, self.cfg.lr)

    def prepare(self, batch: Batch) -> PreparedTexts:
        cells = self.loss.cells(batch)
        pool = self.side.pool(batch, cells)
        points = batch.points[self.world.span(len(batch.points))]
        queries = self.texts.of(batch, QUERIES, self.query_tokens, points)
        labels = self.texts.of(batch, LABELS, self.label_tokens, pool[self.world.span(len(pool))])
        self.texts.keep_what_fits(queries, labels)
        return PreparedTexts(batch, queries, cells, pool, labels)

    def accumulate(
        self,
        ready: PreparedTexts,
        scale: float = 1.0,
        watch: Stopwatch = OFF,
        reduction: GradientReduction | None = None,
    ) -> StepStats:
        queries, labels = ready.queries, ready.labels
        with watch.phase("encode queries"):
            query_BD = queries.embed()
        with watch.phase("encode labels"):
            label_SD = self._vectors(labels.embed())
        with watch.phase("loss"):
            result, grad_query = self.loss.of(query_BD, label_SD, ready)
            grad_label = result.grad_label * scale
            self._take_gradient(grad_label)
        with watch.phase("backward queries"):
            queries.backward(grad_query * scale)
        with watch.phase("backward labels"):
            labels.backward(grad_label, reduction)
        tokens = queries.encoded_tokens + labels.encoded_tokens
        return StepStats(float(result.mean), len(label_SD), tokens)

    def _vectors(self, text_SD: Tensor) -> Tensor:
        """What queries are compared with, from the embedded texts of this rank's labels."""
        return text_SD

    def _take_gradient(self, grad_SD: Tensor) -> None:
        """The gradient of these vectors, beside that of the texts."""

    def retriever(self, embedder: Embedder) -> Retriever:
        return Retriever.of_texts(embedder, self.tokens("labels"))

    def bundle(self, embedder: Embedder) -> BundleWriter:
        return vectors_writer(self.retriever(embedder).write(self.cfg.out_dir / f".{EMBEDDINGS}.tmp"))

    def load_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        """Nothing: any text can be a label."""
