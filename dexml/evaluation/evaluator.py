"""Encode, search exactly, filter, measure: the same for any split and any number of processes.

Labels are sharded over the ranks, and so are the queries of each block; every point is encoded by one rank only and
counted once.

N points of the split, L labels, K predictions kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.data.batching import Ints
from dexml.data.tokens import Tokens
from dexml.distributed import World
from dexml.encoders.encode import embed
from dexml.encoders.text import TextEncoder
from dexml.evaluation.metrics import apply_filters, compute_metrics, filter_overfetch, recall_depths
from dexml.evaluation.propensity import inverse_propensity
from dexml.index.search import FlatSearcher, merge_topk

BLOCK = 16384  # queries encoded and searched at a time


@dataclass(frozen=True)
class EvalSet:
    """The points to evaluate: rows of a token store with their truth."""

    name: str
    tokens: Tokens
    rows: Ints
    relevance: csr_matrix
    """[N, L] of these rows"""
    filters: csr_matrix | None

    @classmethod
    def of(cls, name: str, split: Any, tokens: Tokens, rows: Ints | None = None) -> EvalSet:
        """All points of a `Split`, or some rows of it."""
        rows = np.arange(len(split)) if rows is None else rows
        filters = None if split.filters is None else split.filters[rows]
        return cls(name, tokens, rows, split.relevance[rows], filters)


@dataclass(frozen=True)
class Predictions:
    """Ranked lists, padded with id -1 and score -inf."""

    ids: NDArray[np.int64]
    """[N, K]"""
    scores: NDArray[np.float32]
    """[N, K]"""

    def to_csr(self, n_labels: int) -> csr_matrix:
        """Scores as points x labels; a score of exactly 0 stays stored."""
        real = self.ids >= 0
        indptr = np.concatenate([[0], np.cumsum(real.sum(1))])
        return csr_matrix((self.scores[real], self.ids[real], indptr), shape=(len(self.ids), n_labels))


class Retriever:
    """The labels of this rank's shard, embedded once and searched for any number of query sets."""

    def __init__(
        self,
        encoder: TextEncoder,
        label_tokens: Tokens,
        world: World,
        max_rows: int,
        token_budget: int,
        advance: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.encoder, self.world, self.n_labels = encoder, world, len(label_tokens)
        self.limits = (max_rows, token_budget)
        self.advance = advance
        self.shard = world.span(self.n_labels)
        rows = np.arange(self.shard.start, self.shard.stop)
        self.label_SD = embed(encoder, label_tokens.gather, rows, label_tokens.pad_id, *self.limits, advance).cpu()
        self._searcher = FlatSearcher(self.label_SD.numpy()) if len(rows) else None

    def all_labels(self) -> torch.Tensor:
        """The embeddings of every label [L, D], on every rank's CPU."""
        return self.world.gather_rows(self.label_SD.to(self.world.device), self.n_labels).cpu()

    def search(self, tokens: Tokens, rows: Ints, k: int, filters: csr_matrix | None = None) -> Predictions:
        """The best k labels of each of rows [N], without the cells of `filters` [N, L]."""
        fetch = min(k + (filter_overfetch(filters) if filters is not None else 0), self.n_labels)
        parts = [self._search_block(tokens, rows[b : b + BLOCK], fetch) for b in range(0, len(rows), BLOCK)]
        ids = np.concatenate([ids for ids, _ in parts])
        scores = np.concatenate([scores for _, scores in parts])
        if filters is not None:
            ids, scores = apply_filters(ids, scores, filters, k)
        return Predictions(ids, scores)

    def _search_block(self, tokens: Tokens, rows: Ints, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        mine = rows[self.world.span(len(rows))]
        query_ND = embed(self.encoder, tokens.gather, mine, tokens.pad_id, *self.limits, self.advance)
        query_ND = self.world.gather_rows(query_ND, len(rows)).cpu()
        ids = np.full((len(rows), k), -1, np.int64)
        scores = np.full((len(rows), k), -np.inf, np.float32)
        if self._searcher is not None:
            ids, scores = self._searcher.search(query_ND.numpy(), k)
            ids = np.where(ids >= 0, ids + self.shard.start, -1)
        device = self.world.device
        all_ids = self.world.gather(torch.from_numpy(ids).to(device)).cpu().numpy()
        all_scores = self.world.gather(torch.from_numpy(scores).to(device)).cpu().numpy()
        return merge_topk(list(zip(all_ids, all_scores, strict=True)), k)


@dataclass(frozen=True)
class Scale:
    """What the propensity model needs from the training data."""

    label_counts: NDArray[np.int64]
    """[L] training points of each label"""
    n_points: int
    A: float
    B: float

    @property
    def inverse_propensity(self) -> NDArray[np.float64]:
        return inverse_propensity(self.label_counts, self.n_points, self.A, self.B)


def measure(points: EvalSet, predictions: Predictions, k: int, scale: Scale, ks: tuple[int, ...] = (1, 3, 5)) -> dict:
    """All metrics that k predictions allow, in percent, and the facts they rest on."""
    ks = tuple(sorted({j for j in ks if j <= k}))
    found = compute_metrics(
        predictions.ids,
        points.relevance,
        ks=ks,
        inv_propensity=scale.inverse_propensity,
        recall_ks=recall_depths(k),
        mrr_k=min(10, k),
    )
    return {**found, **facts(points, scale, k)}


def facts(points: EvalSet, scale: Scale, k: int) -> Mapping[str, Any]:
    per_point = np.diff(points.relevance.indptr)
    unseen = scale.label_counts[points.relevance.indices] == 0
    return {
        "n_docs": len(points.rows),
        "n_empty": int((per_point == 0).sum()),
        "n_labels": int(points.relevance.shape[1]),
        "n_unseen_test_positives": int(unseen.sum()),
        "N_train": scale.n_points,
        "A": scale.A,
        "B": scale.B,
        "k_stored": k,
        "ties_rule": "smaller label id first",
        "label_space": "train+test",
        "filter_pairs": 0 if points.filters is None else int(points.filters.nnz),
    }
