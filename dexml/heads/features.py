"""The base of heads that read a text vector with layers of their own: LightXML, Multi-Head Encoding, label trees.

The encoder pools its last layers (`doc_layers`) into one vector a text, so that gradient caching works as for the dual
encoder: the loss is taken at the vectors, their gradient is pushed through the encoder chunk by chunk.

G texts of the global batch, B of this rank, D width of the text vector, N texts searched for, K places kept.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import Parameter

from dexml.config import Config
from dexml.data.batching import Batch, Ints, dropout_keys
from dexml.data.dataset import Split
from dexml.distributed import GradientReduction, World
from dexml.encoders.dropout import place_codes, scaled_mask, site_keys
from dexml.encoders.text import TextEncoder
from dexml.evaluation.retrieval import Embedder, Embeddings, Finder, Lists
from dexml.heads.base import OFF, BundleWriter, Groups, OpenTokens, Prepared, StepStats, decayed, trained
from dexml.heads.batchloss import QUERIES, Texts
from dexml.heads.headfile import read_head, write_head
from dexml.heads.rows import FASTER
from dexml.labels.policy import make_label_side
from dexml.stopwatch import Stopwatch

log = logging.getLogger(__name__)
SITE = 1 << 16  # dropouts of heads are counted from here, beyond those of any encoder
SEARCHED = 512  # texts whose labels are searched at a time


@dataclass(frozen=True)
class Positives:
    """The labels of B points: those of point i are `ids[indptr[i]:indptr[i + 1]]`, ascending, all of them."""

    indptr: Ints
    ids: Ints

    @classmethod
    def of(cls, split: Split, points: Ints) -> Positives:
        return cls._cells(split.relevance[points])

    @classmethod
    def unknown(cls, split: Split, points: Ints) -> Positives:
        """Not these but the labels that a filter names: they are neither true nor false."""
        nothing = csr_matrix((len(points), split.relevance.shape[1]))
        return cls._cells(nothing if split.filters is None else split.filters[points])

    @classmethod
    def _cells(cls, cells: csr_matrix) -> Positives:
        cells.sort_indices()
        return cls(cells.indptr.astype(np.int64), cells.indices.astype(np.int64))

    @property
    def rows(self) -> Ints:
        """The point of each label, beside `ids`."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


@dataclass(frozen=True)
class PreparedFeatures(Prepared):
    points: Ints
    """[B] this rank's part of the batch"""
    positives: Positives
    """of these points"""
    keys: NDArray[np.int32]
    """[B] dropout keys"""


class FeatureHead(ABC):
    """A subclass builds `net` and `own` (`build`), gives a loss and searches."""

    n_texts = 0
    spread = True
    """`best` takes any part of the texts on any rank; else it is called with all of them on every rank at once."""
    leaves_out_filtered = False
    """whether pairs that a filter names take no part in training"""

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, tokens: OpenTokens, world: World) -> None:
        self.cfg, self.encoder, self.n_labels, self.tokens, self.world = cfg, encoder, n_labels, tokens, world
        self.net: nn.Module = nn.Module()
        """what every rank holds beside the encoder"""
        self.own: dict[str, Parameter] = {}
        """tables of which every rank holds a span of the first axis"""
        self.sizes: dict[str, int] = {}
        """the first axis of each whole table"""

    # --- what a subclass says ---

    @abstractmethod
    def fit(self, split: Split) -> None:
        """Works out the structure from the training points and makes `net` and `own`; random numbers are seeded."""

    @abstractmethod
    def loss(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        """This rank's part of the loss of the global batch: its sum divided by the global count of terms."""

    @abstractmethod
    def best(self, z_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best labels of each text, ids [N, k] and scores, padded with -1 and -inf; of equals the smaller id."""

    @abstractmethod
    def write_structure(self, folder: Path) -> None:
        """Writes what `read_structure` reads, into a bundle."""

    @abstractmethod
    def read_structure(self, folder: Path) -> None:
        """Makes `net` and `own` from what a bundle holds beside the tensors."""

    # --- the head, as the trainer knows it ---

    @property
    def model(self) -> nn.Module:
        return nn.ModuleDict({"encoder": self.encoder, "net": self.net})

    @property
    def score_tau(self) -> float | None:
        return None

    @property
    def shared(self) -> list[Parameter]:
        return trained(self.encoder) + list(self.net.parameters())

    def learn_from(self, split: Split) -> None:
        self.split, self.side = split, make_label_side(self.cfg, split, self.world)
        if split.filters is not None and split.filters.nnz and not self.leaves_out_filtered:
            told = "filter_labels_train.txt: %s learns its %d pairs as false, other nets leave them out"
            log.warning(told, self.cfg.net, split.filters.nnz)
        self.query_tokens = self.tokens("trn")
        self.texts = Texts(self.cfg, self.encoder, self.world)
        self._seeded(lambda: self.fit(split))

    def fit_structure(self, embedder: Embedder) -> None:
        """Nothing: `fit` has drawn the starting weights."""
        return

    def param_groups(self) -> Groups:
        """The encoder, then what is learnt from nothing, at `clf_lr`."""
        own = trained(self.encoder)
        return (
            decayed(own, self.cfg, self.cfg.lr)
            + decayed(self.net.parameters(), self.cfg, self.head_lr)
            + decayed(self.own.values(), self.cfg, self.head_lr) * bool(self.own)
        )

    @property
    def head_lr(self) -> float:
        return self.cfg.clf_lr or FASTER * self.cfg.lr

    def prepare(self, batch: Batch) -> PreparedFeatures:
        points = batch.points[self.world.span(len(batch.points))]
        queries = self.texts.of(batch, QUERIES, self.query_tokens, points)
        self.texts.keep_what_fits(queries)
        keys = dropout_keys(self.cfg.seed, batch.epoch, batch.step, QUERIES, points)
        return PreparedFeatures(batch, queries, points, Positives.of(self.split, points), keys)

    def accumulate(
        self,
        ready: PreparedFeatures,
        scale: float = 1.0,
        watch: Stopwatch = OFF,
        reduction: GradientReduction | None = None,
    ) -> StepStats:
        with watch.phase("encode queries"):
            z_BD = ready.queries.embed().requires_grad_()
        with watch.phase("loss"):
            loss = self.loss(z_BD, ready)
            told = self.world.sum_(loss.detach().clone())  # before ranks with more to do begin to reduce
            (loss * scale).backward()
        if reduction is not None:
            for place in range(len(trained(self.encoder)), len(self.shared)):
                reduction.ready(place)
        with watch.phase("backward queries"):
            grad_BD = torch.zeros_like(z_BD) if z_BD.grad is None else z_BD.grad
            ready.queries.backward(grad_BD, reduction)
        return StepStats(float(told), 0, ready.queries.encoded_tokens)

    def dropped(self, z_BD: Tensor, ready: PreparedFeatures) -> Tensor:
        """z after `doc_dropout`, which like all dropout here is a function of (seed, epoch, step, point)."""
        p = self.cfg.doc_dropout
        if p == 0 or not self.encoder.training:
            return z_BD
        keys = site_keys(torch.from_numpy(ready.keys).to(z_BD.device), SITE)
        return z_BD * scaled_mask(place_codes(z_BD.shape[1:], device=z_BD.device), keys, p, z_BD.dtype)

    def retriever(self, embedder: Embedder) -> Finder:
        return HeadFinder(embedder, self)

    # --- bundles ---

    def bundle(self, embedder: Embedder) -> BundleWriter:
        whole = {name: self.world.gather_rows(p.detach(), self.sizes[name]).cpu() for name, p in self.own.items()}

        def write(folder: Path, digests: Mapping[str, str]) -> None:
            write_head(folder, self.cfg.net, self.net.state_dict(), whole, digests)
            self.write_structure(folder)

        return write

    def load_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        self._seeded(lambda: self.read_structure(folder))
        rows = {name: self.world.span(n) for name, n in self.sizes.items()}
        net, own = read_head(folder, self.cfg.net, list(label_texts), rows)
        self.net.load_state_dict(net)
        with torch.no_grad():
            for name, p in self.own.items():
                p.copy_(own[name])

    def _seeded(self, make: Callable[[], None]) -> None:
        """Starting weights are drawn on the CPU from `seed`, and take type and place of the encoder's."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.cfg.seed)
            make()
        self.net.to(next(self.encoder.parameters()))
        for p in self.own.values():
            p.data = p.data.to(next(self.encoder.parameters()))


class HeadFinder(Finder):
    """What a head finds for texts, block by block."""

    def __init__(self, embedder: Embedder, head: FeatureHead) -> None:
        super().__init__(embedder, head.n_labels)
        self.head = head

    @torch.no_grad()
    def search_vectors(self, query_ND: Embeddings, k: int) -> Lists:
        n = len(query_ND)
        mine = query_ND[self.world.span(n)] if self.head.spread else query_ND
        like = next(self.head.encoder.parameters())
        parts = [
            self.head.best(torch.from_numpy(mine[i : i + SEARCHED]).to(like), k) for i in range(0, len(mine), SEARCHED)
        ]
        nothing = torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)
        ids, scores = (torch.cat(side) for side in zip(*parts or [nothing], strict=True))
        if self.head.spread:
            device = self.world.device
            ids, scores = (self.world.gather_rows(x.to(device), n) for x in (ids, scores))
        return ids.cpu().numpy(), scores.float().cpu().numpy()
