"""The dual encoder as a head: its "parameters" are the label texts, sent through the same encoder as the queries.

B queries of this rank, G of the global batch, S labels of this rank's shard of the pool, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexml.config import Config
from dexml.data.batching import Batch, Ints, dropout_keys
from dexml.data.dataset import Split
from dexml.data.tokens import Tokens
from dexml.distributed import GradientReduction, World
from dexml.encoders.memory import activation_budget, activation_bytes
from dexml.encoders.text import TextEncoder
from dexml.labels.correction import LogQ
from dexml.labels.gradcache import Chunking, TextSide
from dexml.labels.policy import LabelSide
from dexml.labels.positives import Cells, batch_cells, num_pos
from dexml.losses import Positives, TiledResult, TopK, tiled
from dexml.stopwatch import Stopwatch

QUERIES, LABELS = 0, 1
OFF = Stopwatch()


@dataclass(frozen=True)
class Prepared:
    """All of a batch that can be made ready before its step: it depends on no weights."""

    batch: Batch
    cells: Cells
    pool: Ints
    queries: TextSide
    labels: TextSide


@dataclass(frozen=True)
class StepStats:
    """What a step cost and gave; counts are of this rank."""

    loss: float
    """Mean over the global batch."""
    labels: int
    tokens: int


class DualEncoder:
    """Loss and gradients of a global batch, each rank encoding its part of the queries and of the labels.

    Args:
        split: the training points; `query_tokens` are their texts and `label_tokens` those of the labels.
    """

    def __init__(
        self,
        cfg: Config,
        encoder: TextEncoder,
        split: Split,
        query_tokens: Tokens,
        label_tokens: Tokens,
        side: LabelSide,
        world: World,
    ) -> None:
        self.cfg, self.encoder, self.split, self.side, self.world = cfg, encoder, split, side, world
        self.query_tokens, self.label_tokens = query_tokens, label_tokens
        self.room = activation_budget(cfg.memory_budget, world) / activation_bytes(encoder, cfg.tf_max_len)
        """tokens whose activations may be kept between encoding and gradient"""
        self.query_chunking = Chunking(cfg.gc_bsz_x or cfg.bsz, cfg.token_budget)
        self.label_chunking = Chunking(cfg.gc_bsz, cfg.token_budget)

        self.logq = LogQ(split.relevance, cfg.loss_sample) if cfg.logq_correction else None

    @property
    def take(self) -> int:
        """Positives kept of a query; 0 keeps all."""
        if not self.cfg.loss_sample:
            return 0
        if self.cfg.loss_criterion == "topk":
            return int(self.cfg.topk_K)
        return 1 if self.side.name == "all" else self.cfg.num_pos_samples

    def prepare(self, batch: Batch) -> Prepared:
        """Positives, labels and token ids of a batch; may run in another thread while a step is under way."""
        cells = batch_cells(self.split.relevance, self.split.filters, batch, self.take, self.cfg.seed)
        pool = self.side.pool(batch, cells)
        points = batch.points[self.world.span(len(batch.points))]
        queries = self._texts(batch, QUERIES, self.query_tokens, points)
        labels = self._texts(batch, LABELS, self.label_tokens, pool[self.world.span(len(pool))])
        room = self.room if self.cfg.gc_bsz_x else max(self.room, queries.chunks.tokens)  # 0 asks for all queries
        labels.keep(room - queries.keep(room))
        return Prepared(batch, cells, pool, queries, labels)

    def accumulate(
        self,
        ready: Prepared,
        scale: float = 1.0,
        watch: Stopwatch = OFF,
        reduction: GradientReduction | None = None,
    ) -> StepStats:
        """Adds `scale` times the gradient of the batch's mean loss to `.grad`.

        This rank adds its own part only: the sum over ranks (`GradientReduction`) is the gradient. With `reduction`
        nothing is added after this, and the sum begins while the last chunks are at work.
        """
        batch, pool, queries, labels = ready.batch, ready.pool, ready.queries, ready.labels
        with watch.phase("encode queries"):
            query_BD = queries.embed()
        with watch.phase("encode labels"):
            label_SD = labels.embed()
        with watch.phase("loss"):
            query_GD = self.world.gather_rows(query_BD, len(batch.points))
            positives = ready.cells.on_shard(pool, self.world.span(len(pool)), query_GD.device)
            result = self._loss(query_GD, label_SD, positives, pool, batch)
            grad_query = self.world.scatter_rows_sum(result.grad_query)
        with watch.phase("backward queries"):
            queries.backward(grad_query * scale)
        with watch.phase("backward labels"):
            labels.backward(result.grad_label * scale, reduction)
        tokens = queries.encoded_tokens + labels.encoded_tokens
        return StepStats(float(result.mean), len(label_SD), tokens)

    def _texts(self, batch: Batch, side: int, tokens: Tokens, rows: Ints) -> TextSide:
        keys = dropout_keys(self.cfg.seed, batch.epoch, batch.step, side, rows)
        chunking = self.query_chunking if side == QUERIES else self.label_chunking
        return TextSide(self.encoder, tokens, rows, keys, chunking)

    def _loss(self, query_GD: Tensor, label_SD: Tensor, positives: Positives, pool: Ints, batch: Batch) -> TiledResult:
        cfg = self.cfg
        return tiled(
            cfg.loss_criterion,
            query_GD,
            label_SD,
            positives,
            cfg.tau,
            tile_rows=cfg.tile_rows,
            tile_cols=cfg.tile_cols,
            comm=self.world,
            n_labels_total=len(pool),
            weighted=cfg.loss_weighted,
            topk=self._topk(batch) if cfg.loss_criterion == "topk" else None,
            log_weights=self._log_weights(pool, batch),
        )

    def _log_weights(self, pool: Ints, batch: Batch) -> Tensor | None:
        if self.logq is None:
            return None
        mine = pool[self.world.span(len(pool))]
        return torch.from_numpy(self.logq.log_weights(mine, len(batch.points))).float().to(self.world.device)

    def _topk(self, batch: Batch) -> TopK:
        cfg = self.cfg
        # one k a row even where all are equal: a pool that is smaller than k gives no loss, not an error
        each = num_pos(self.split.relevance, batch) if isinstance(cfg.topk_K, str) else cfg.topk_K
        k = torch.from_numpy(np.broadcast_to(each, len(batch.points)).astype(np.int64)).to(self.world.device)
        return TopK(k, cfg.topk_alpha, cfg.topk_cdf, cfg.topk_solver, cfg.topk_n_iter)
