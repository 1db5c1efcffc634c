"""Texts embedded over the ranks and searched: every query is encoded by one rank only, every list is whole.

Items are sharded over the ranks, and so are the queries of each block.

N queries, S items of this rank's shard, D embedding width, K places kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dexml.data.batching import Ints
from dexml.data.rowfile import append_rows, safetensors_header
from dexml.data.tokens import Tokens
from dexml.distributed import World
from dexml.encoders.encode import embed
from dexml.encoders.text import TextEncoder
from dexml.evaluation.topk import apply_filters, filter_overfetch
from dexml.index.search import FlatSearcher, merge_topk

BLOCK = 16384  # queries encoded and searched at a time
Embeddings = NDArray[np.float32]
Lists = tuple[NDArray[np.int64], NDArray[np.float32]]
"""ids and scores [N, K], padded with -1 and -inf"""


@dataclass(frozen=True)
class Predictions:
    """Ranked lists, padded with id -1 and score -inf."""

    ids: NDArray[np.int64]
    """[N, K]"""
    scores: NDArray[np.float32]
    """[N, K]"""

    def part(self, rows: slice) -> Predictions:
        return Predictions(self.ids[rows], self.scores[rows])

    def to_csr(self, n_labels: int) -> csr_matrix:
        """Scores as points x labels; a score of exactly 0 stays stored."""
        real = self.ids >= 0
        indptr = np.concatenate([[0], np.cumsum(real.sum(1))])
        return csr_matrix((self.scores[real], self.ids[real], indptr), shape=(len(self.ids), n_labels))


class Embedder:
    """The encoder as it is now, on texts that every rank has: each encodes a part, all get the whole."""

    def __init__(
        self,
        encoder: TextEncoder,
        world: World,
        max_rows: int,
        token_budget: int,
        advance: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.encoder, self.world = encoder, world
        self.limits = (max_rows, token_budget)
        self.advance = advance

    def part(self, tokens: Tokens, rows: Ints) -> torch.Tensor:
        """Embeddings of this rank's span of `rows`, on its device."""
        mine = rows[self.world.span(len(rows))]
        return embed(self.encoder, tokens.gather, mine, tokens.pad_id, *self.limits, self.advance)

    def whole(self, tokens: Tokens, rows: Ints) -> Embeddings:
        """Embeddings [n, D] of n rows, on every rank."""
        return self.world.gather_rows(self.part(tokens, rows), len(rows)).cpu().numpy()


class Searcher(Protocol):
    """Anything that finds the best k of its items: ids [N, k] and scores [N, k], padded with -1 and -inf."""

    def search(self, queries: Embeddings, k: int) -> Lists: ...


class Finder(ABC):
    """Finds the best of `n_items` items for texts, which are encoded over the ranks."""

    def __init__(self, embedder: Embedder, n_items: int) -> None:
        self.embedder, self.world, self.n_items = embedder, embedder.world, n_items

    def search(self, tokens: Tokens, rows: Ints, k: int, filters: csr_matrix | None = None) -> Predictions:
        """The best k items of each of `rows` [N], without the cells of `filters` [N, items]."""
        return search_together([Wanted(self, k, filters)], tokens, rows)[0]

    @abstractmethod
    def search_vectors(self, query_ND: Embeddings, k: int) -> Lists:
        """The best k items of each query, which are the same on every rank: ids and scores [N, k]."""


class Retriever(Finder):
    """Vectors of items, a shard on each rank, searched exactly for any number of query sets.

    Args:
        item_SD: float32, this rank's span of the items.
        n_items: those of all ranks.
    """

    def __init__(self, embedder: Embedder, item_SD: torch.Tensor, n_items: int) -> None:
        super().__init__(embedder, n_items)
        self.item_SD = item_SD.cpu()
        self.first = self.world.span(n_items).start
        """id of the first item of this rank's searcher"""

    @cached_property
    def searcher(self) -> Searcher | None:
        return FlatSearcher(self.item_SD.numpy()) if len(self.item_SD) else None

    @classmethod
    def of_texts(cls, embedder: Embedder, tokens: Tokens, rows: Ints | None = None) -> Retriever:
        """Over texts embedded once: all of `tokens`, or these rows of it; found ids count from 0 in them."""
        rows = np.arange(len(tokens)) if rows is None else rows
        return cls(embedder, embedder.part(tokens, rows), len(rows))

    def write(self, path: Path) -> Path:
        """Leaves the embeddings of all items in a safetensors file, as `labels`; no rank holds more than its own."""
        header = safetensors_header("labels", (self.n_items, self.item_SD.shape[1]))
        self.world.on_main(lambda: path.write_bytes(header))
        self.world.rows_to_main(self.item_SD, self.n_items, lambda rows: append_rows(path, rows.cpu().numpy()))
        return path

    def through(self, make: Callable[[Embeddings], Searcher]) -> Retriever:
        """The same items behind the searcher that `make` builds over all of them, on rank 0."""
        other, parts, made = copy(self), list[Embeddings](), list[Searcher]()
        self.world.rows_to_main(self.item_SD, self.n_items, lambda rows: parts.append(rows.cpu().numpy()))
        self.world.on_main(lambda: made.append(make(np.concatenate(parts))))
        other.first, other.searcher = 0, made[0] if made else None
        return other

    def search_vectors(self, query_ND: Embeddings, k: int) -> Lists:
        ids = np.full((len(query_ND), k), -1, np.int64)
        scores = np.full((len(query_ND), k), -np.inf, np.float32)
        if self.searcher is not None:
            ids, scores = self.searcher.search(query_ND, k)
            ids = np.where(ids >= 0, ids + self.first, -1)
        device = self.world.device
        all_ids = self.world.gather(torch.from_numpy(ids).to(device)).cpu().numpy()
        all_scores = self.world.gather(torch.from_numpy(scores).to(device)).cpu().numpy()
        return merge_topk(list(zip(all_ids, all_scores, strict=True)), k)


class CosineRetriever(Retriever):
    """The same for vectors of any length, compared by their directions."""

    def __init__(self, embedder: Embedder, item_SD: torch.Tensor, n_items: int) -> None:
        super().__init__(embedder, F.normalize(item_SD, dim=1), n_items)

    def search_vectors(self, query_ND: Embeddings, k: int) -> Lists:
        return super().search_vectors(F.normalize(torch.from_numpy(query_ND), dim=1).numpy(), k)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a finder: k items a query, without the cells of `filters` [N, items]."""

    finder: Finder
    k: int
    filters: csr_matrix | None = None

    @cached_property
    def fetch(self) -> int:
        more = filter_overfetch(self.filters) if self.filters is not None else 0
        return min(self.k + more, self.finder.n_items)

    def part(self, query_ND: Embeddings, rows: slice) -> Predictions:
        """The lists of a block of the queries, which are `rows` of all."""
        filters = None if self.filters is None else self.filters[rows]
        lists = self.finder.search_vectors(query_ND, self.fetch)
        return Wanted(self.finder, self.k, filters).finish([lists])

    def finish(self, parts: Sequence[Lists]) -> Predictions:
        """The lists of all blocks, filtered and cut."""
        ids, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if self.filters is not None:
            ids, scores = apply_filters(ids, scores, self.filters, min(self.k, self.finder.n_items))
        return Predictions(ids, scores)


def search_together(wanted: Sequence[Wanted], tokens: Tokens, rows: Ints) -> list[Predictions]:
    """Answers for `rows` [N] of queries, encoded once, block by block."""
    parts: list[list[Lists]] = [[] for _ in wanted]
    for begin in range(0, len(rows), BLOCK):
        query_ND = wanted[0].finder.embedder.whole(tokens, rows[begin : begin + BLOCK])
        for part, one in zip(parts, wanted, strict=True):
            part.append(one.finder.search_vectors(query_ND, one.fetch))
    return [one.finish(part) for part, one in zip(parts, wanted, strict=True)]
