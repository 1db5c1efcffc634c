"""What heads that compare queries with label vectors share: the texts, the cells and the loss of a step.

G queries of the global batch, B of this rank, S label vectors of this rank's shard of the pool, D embedding width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexml.config import Config
from dexml.data.batching import Batch, Ints, dropout_keys
from dexml.data.dataset import Split
from dexml.data.tokens import Tokens
from dexml.distributed import World
from dexml.encoders.memory import activation_budget, activation_bytes
from dexml.encoders.text import TextEncoder
from dexml.heads.base import PreparedPool
from dexml.labels.correction import LogQ
from dexml.labels.gradcache import Chunking, TextSide
from dexml.labels.policy import LabelSide
from dexml.labels.positives import Cells, batch_cells, num_pos
from dexml.losses import TiledResult, TopK, label_mass, tiled

QUERIES, LABELS = 0, 1


class Texts:
    """Texts of batches, cut for the encoder."""

    def __init__(self, cfg: Config, encoder: TextEncoder, world: World) -> None:
        self.cfg, self.encoder = cfg, encoder
        self.room = activation_budget(cfg.memory_budget, world) / activation_bytes(encoder, cfg.tf_max_len)
        """tokens whose activations may be kept between encoding and gradient"""
        self.chunking = {QUERIES: Chunking(cfg.gc_bsz_x or cfg.bsz, cfg.token_budget)}
        self.chunking[LABELS] = Chunking(cfg.gc_bsz, cfg.token_budget)

    def of(self, batch: Batch, side: int, tokens: Tokens, rows: Ints) -> TextSide:
        keys = dropout_keys(self.cfg.seed, batch.epoch, batch.step, side, rows)
        return TextSide(self.encoder, tokens, rows, keys, self.chunking[side])

    def keep_what_fits(self, queries: TextSide, *more: TextSide) -> float:
        """Keeps activations up to the room, those of the queries first; returns the tokens there is room for still."""
        room = self.room if self.cfg.gc_bsz_x else max(self.room, queries.chunks.tokens)  # 0 asks for all queries
        for texts in (queries, *more):
            room -= texts.keep(room)
        return room


class BatchLoss:
    """The loss of a global batch over the labels of its pool, on one rank of a world."""

    def __init__(self, cfg: Config, split: Split, world: World, side: LabelSide) -> None:
        self.cfg, self.split, self.world, self.side = cfg, split, world, side
        self.logq = LogQ(split.relevance, cfg.loss_sample) if cfg.logq_correction else None

    @property
    def take(self) -> int:
        """Positives kept of a query; 0 keeps all."""
        if not self.cfg.loss_sample:
            return 0
        if self.cfg.loss_criterion == "topk":
            return int(self.cfg.topk_K)
        return 1 if self.side.name in ("all", "bank") else self.cfg.num_pos_samples

    def cells(self, batch: Batch) -> Cells:
        return batch_cells(self.split.relevance, self.split.filters, batch, self.take, self.cfg.seed)

    def of(self, query_BD: Tensor, label_SD: Tensor, ready: PreparedPool) -> tuple[TiledResult, Tensor]:
        """Loss and gradients; the second is the gradient of this rank's queries [B, D]."""
        result = tiled(**self._arguments(query_BD, label_SD, ready))
        return result, self.world.scatter_rows_sum(result.grad_query)

    def mass(self, query_BD: Tensor, label_SD: Tensor, ready: PreparedPool) -> Tensor:
        """[S] how much the loss pulls at each label."""
        return label_mass(**self._arguments(query_BD, label_SD, ready))

    def _arguments(self, query_BD: Tensor, label_SD: Tensor, ready: PreparedPool) -> dict[str, Any]:
        cfg, batch, pool = self.cfg, ready.batch, ready.pool
        return {
            "loss": cfg.loss_criterion,
            "query_GD": self.world.gather_rows(query_BD, len(batch.points)),
            "label_SD": label_SD,
            "positives": ready.cells.on_shard(pool, self.world.span(len(pool)), query_BD.device),
            "tau": cfg.tau,
            "tile_rows": cfg.tile_rows,
            "tile_cols": cfg.tile_cols,
            "comm": self.world,
            "n_labels_total": len(pool),
            "weighted": cfg.loss_weighted,
            "topk": self._topk(batch),
            "log_weights": self._log_weights(pool, batch),
        }

    def _log_weights(self, pool: Ints, batch: Batch) -> Tensor | None:
        if self.logq is None:
            return None
        mine = pool[self.world.span(len(pool))]
        return torch.from_numpy(self.logq.log_weights(mine, len(batch.points))).float().to(self.world.device)

    def _topk(self, batch: Batch) -> TopK:
        cfg = self.cfg
        if cfg.loss_criterion != "topk":
            return TopK()
        # one k a row even where all are equal: a pool that is smaller than k gives no loss, not an error
        each = num_pos(self.split.relevance, batch) if isinstance(cfg.topk_K, str) else cfg.topk_K
        k = torch.from_numpy(np.broadcast_to(each, len(batch.points)).astype(np.int64)).to(self.world.device)
        return TopK(k, cfg.topk_alpha, cfg.topk_cdf, cfg.topk_solver, cfg.topk_n_iter)
