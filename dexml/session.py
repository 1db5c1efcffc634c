"""What training and evaluation share: the data of a config, checked and tokenised, and its encoder.

Order matters: cheap checks first, so that a mistake is told before anything long starts.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags

from dexml.config import Config, ConfigError
from dexml.data.batching import Ints
from dexml.data.dataset import FILTER_FILES, Dataset, Split
from dexml.data.files import sha256
from dexml.data.tokenize import open_tokens
from dexml.data.tokenizer import RowTokenizer, load_tokenizer
from dexml.data.tokens import Tokens
from dexml.distributed import World
from dexml.encoders.pretrained import build_encoder
from dexml.encoders.text import TextEncoder
from dexml.evaluation.evaluator import EvalSet, Scale, measure
from dexml.evaluation.metrics import recall_depths
from dexml.evaluation.propensity import propensity_constants
from dexml.evaluation.retrieval import Embedder, Finder, Predictions
from dexml.heads.attentionxmltree import level_dataset, tree_of
from dexml.heads.base import Head
from dexml.heads.make import make_head
from dexml.machine import cores
from dexml.training.progress import bar

log = logging.getLogger(__name__)
TEXT_FILES = {"trn": "trn_X.txt", "tst": "tst_X.txt", "dev": "dev_X.txt", "labels": "Y.txt"}


class Session:
    """Data set, token stores, encoder and head of a config, on one rank of a world.

    Args:
        splits: what the data folder must hold; training needs both.
    """

    def __init__(self, cfg: Config, world: World, splits: Sequence[str] = ("trn", "tst")) -> None:
        self.cfg, self.world = cfg, world
        share_cores(cfg, world)
        self.dataset = Dataset.load(cfg.data_dir, splits)
        self._check_labels()
        self.train_rows, self.val_rows = self._split()
        self.dataset = self._outputs()
        for notice in self.dataset.notices:
            log.info("%s", notice)

    def _check_labels(self) -> None:
        if self.cfg.eval_topk > self.dataset.n_labels:
            raise ConfigError(
                f"eval_topk is {self.cfg.eval_topk} but {self.dataset.path} has {self.dataset.n_labels} labels: "
                f"set eval_topk to {self.dataset.n_labels} at most"
            )
        k = self.cfg.topk_K
        if self.cfg.loss_criterion == "topk" and not isinstance(k, str) and k >= self.dataset.n_labels:
            raise ConfigError(
                f"topk_K is {k} but {self.dataset.path} has {self.dataset.n_labels} labels: "
                f"set topk_K to {self.dataset.n_labels - 1} at most"
            )
        kind, _, depth = self.cfg.track_metric.partition("@")
        if kind == "MRR" and int(depth) != min(10, self.cfg.eval_topk):
            raise ConfigError(
                f"track_metric {self.cfg.track_metric} is not measured: take MRR@{min(10, self.cfg.eval_topk)}"
            )

    def _split(self) -> tuple[Ints, Ints]:
        """Rows to train on (drawn anew for a bootstrap) and rows held out for model selection."""
        if "trn" not in self.dataset.splits:
            return np.arange(0), np.arange(0)
        rows, held_out = np.arange(len(self.dataset.trn)), np.arange(0)
        if self.cfg.num_val_points:
            rows, held_out = self.world.on_main(
                lambda: self.dataset.validation_rows(self.cfg.num_val_points, self.cfg.seed)
            )
        labelled = rows[np.diff(self.dataset.trn.relevance.indptr)[rows] > 0]
        if not len(labelled):
            raise ConfigError(f"{self.dataset.path}: no training point with labels is left to train on")
        if not self.cfg.learns_from_none:
            rows = labelled
        if self.cfg.bootstrap_seed is not None:
            rows = np.sort(np.random.default_rng(self.cfg.bootstrap_seed).choice(rows, len(rows)))
        return rows, held_out

    def _outputs(self) -> Dataset:
        """The points with what the run predicts: the labels, or nodes of a tree of them."""
        if self.cfg.train_level is None:
            return self.dataset
        tree = tree_of(self.cfg, self._without_held_out(), self.tokens, self.world)
        return level_dataset(self.dataset, tree, self.cfg.train_level)

    @cached_property
    def training_split(self) -> Split:
        """The training points, those held out without their labels: all that a head may learn from."""
        return self._without_held_out()

    def _without_held_out(self) -> Split:
        if not len(self.val_rows):
            return self.dataset.trn
        seen = diags(np.isin(np.arange(len(self.dataset.trn)), self.val_rows, invert=True).astype(np.float32))
        relevance = csr_matrix(seen @ self.dataset.trn.relevance)
        relevance.eliminate_zeros()
        return replace(self.dataset.trn, relevance=relevance)

    def tokens(self, part: str) -> Tokens:
        """Token ids of `trn`, `tst`, `dev` or `labels`; rank 0 tokenises where need be, the others wait."""
        if part not in self._tokens:
            path = self.dataset.path / "raw" / TEXT_FILES[part]
            online = self.cfg.data_tokenization == "online"
            args = (path, self.cfg.tokenizer_name, self.cfg.tf_max_len, online)

            def build() -> None:
                self._tokens[part] = open_tokens(*args)

            self.world.on_main(build)
            if not self.world.is_main:
                self._tokens[part] = open_tokens(*args, build=False)
        return self._tokens[part]

    @cached_property
    def _tokens(self) -> dict[str, Tokens]:
        return {}

    @cached_property
    def encoder(self) -> TextEncoder:
        cfg = self.cfg
        encoder = build_encoder(cfg, self.world.device)
        config = encoder.tf.config
        tokenizer = RowTokenizer(load_tokenizer(cfg.tokenizer_name), cfg.tf_max_len)
        if tokenizer.vocab_size > config.vocab_size:  # type: ignore[union-attr, operator]
            raise ConfigError(
                f"tf_token_type: '{cfg.tokenizer_name}' has token ids up to {tokenizer.vocab_size - 1}, "
                f"'{cfg.tf}' knows {config.vocab_size}: name the tokenizer made for this model"  # type: ignore[union-attr]
            )
        found = set(self.world.gather_objects(encoder.precision))
        if len(found) > 1:
            raise ConfigError(f"precision: the processes would use {', '.join(sorted(found))}: set one that all have")
        return encoder

    @cached_property
    def head(self) -> Head:
        return make_head(self.cfg, self.encoder, self.dataset.n_labels, self.tokens, self.world)

    @cached_property
    def scale(self) -> Scale | None:
        """Propensity constants by the data set's name, counts over the full training split; None without one."""
        cfg = self.cfg
        if "trn" not in self.dataset.splits:
            log.info("%s has no training points: no PSP, which needs their label counts", self.dataset.path)
            return None
        A, B, known = propensity_constants(self.dataset.name, cfg.propensity_A, cfg.propensity_B)
        where = "" if known else " (the default: this data set is not in the table)"
        log.info("propensity: A=%s, B=%s, N=%d%s", A, B, len(self.dataset.trn), where)
        counts = np.bincount(self.dataset.trn.relevance.indices, minlength=self.dataset.n_labels)
        return Scale(counts, len(self.dataset.trn), A, B)

    def points(self, name: str) -> EvalSet:
        """The points of `val` (held out of training), `trn`, `tst` or `dev`."""
        if name == "val":
            if not len(self.val_rows):
                raise ConfigError("there is no validation split: num_val_points is 0")
            return EvalSet.of("val", self.dataset.trn, self.tokens("trn"), self.val_rows)
        if name == "dev" and self.dataset.dev is None:
            raise ConfigError(f"{self.dataset.path} has no dev split (raw/dev_X.txt and Y.dev.npz)")
        return EvalSet.of(name, getattr(self.dataset, name), self.tokens(name))

    def evaluate(self, *names: str) -> dict[str, tuple[dict[str, Any], Predictions]]:
        """Metrics and predictions of these splits, with the labels embedded once."""
        sets = [self.points(name) for name in names]
        with self.embedding(f"evaluating {' and '.join(names)}", self.head.n_texts, *sets) as embedder:
            finder = self.retrieve(embedder)
            found = {s.name: finder.search(s.tokens, s.rows, self.cfg.eval_topk, s.filters) for s in sets}
        return {s.name: (self.measure(s, found[s.name]), found[s.name]) for s in sets}

    @contextmanager
    def embedding(self, title: str, more: int, *sets: EvalSet) -> Iterator[Embedder]:
        """The encoder as it is now, with a bar over `more` texts and the points of `sets`."""
        work = more + sum(len(points.rows) for points in sets)
        with bar(title, work // self.world.size, self.world.is_main) as advance:
            yield self.embedder(advance)

    def embedder(self, advance: Callable[[int], None] = lambda n: None) -> Embedder:
        size = self.cfg.eval_bsz or 2 * self.cfg.bsz
        return Embedder(self.encoder, self.world, size, self.cfg.token_budget, advance)

    def retrieve(self, embedder: Embedder | None = None) -> Finder:
        """The labels as the model has them now, ready to be searched."""
        return self.head.retriever(embedder or self.embedder())

    def measure(self, points: EvalSet, predictions: Predictions) -> dict[str, Any]:
        """The metrics of predictions, taken by rank 0 and the same on every rank."""
        return self.world.on_main(lambda: self.measure_here(points, predictions))

    def measure_here(self, points: EvalSet, predictions: Predictions) -> dict[str, Any]:
        """The metrics of predictions, without the other ranks."""
        return measure(points, predictions, predictions.ids.shape[1], self.scale, self._depths)

    @property
    def _depths(self) -> tuple[int, ...]:
        """Depths of P, nDCG, PSP and R: the usual ones, and that of `track_metric` where it is another."""
        kind, _, depth = self.cfg.track_metric.partition("@")
        usual = kind == "MRR" or (kind == "R" and int(depth) in recall_depths(self.cfg.eval_topk))
        return (1, 3, 5) if usual else (1, 3, 5, int(depth))

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Changes when the texts, the tokenizer or the truth of the training data change."""
        facts = {TEXT_FILES[part]: self.tokens(part).fingerprint for part in ("trn", "labels")}
        for name in ("Y.trn.npz", FILTER_FILES["trn"]):
            path = self.dataset.path / name
            facts[name] = sha256(path) if path.exists() else ""
        return {**facts, "validation rows": hashlib.sha256(self.val_rows.tobytes()).hexdigest()}


def share_cores(cfg: Config, world: World) -> None:
    """Launchers give each process one thread; here the processes of a machine share its cores.

    A single process keeps to OMP_NUM_THREADS where it is set.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    if cfg.num_threads or world.size > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cfg.num_threads or max(1, cores() // local))
