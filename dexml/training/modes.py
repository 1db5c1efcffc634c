"""Prediction by the nearest labels, by the nearest training points (knn) and by both (mix), side by side.

The training points that vote are those trained on, with their labels; a point never votes for itself. What the config
leaves open (`knn_k`, `knn_weight`) is chosen on the validation points, never on the test set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from dexml.config import Config, ConfigError
from dexml.data.batching import Ints
from dexml.evaluation.evaluator import EvalSet
from dexml.evaluation.knn import Vote
from dexml.evaluation.retrieval import CosineRetriever, Finder, Predictions, Retriever, Wanted, search_together
from dexml.heads.features import FeatureHead
from dexml.session import Session

log = logging.getLogger(__name__)
MODES = ("labels", "knn", "mix")
KS = (5, 10, 20, 50)
WEIGHTS = (0.1, 0.25, 0.5, 0.75, 0.9)
K, WEIGHT = 20, 0.25  # where there are no validation points to choose on

Scored = tuple[dict[str, Any], Predictions]


@dataclass(frozen=True)
class Seen:
    """A split with its nearest labels and its nearest training points, both best first."""

    points: EvalSet
    labels: Predictions
    neighbours: Predictions
    """ids count in `Session.train_rows`"""


def evaluate_modes(session: Session, splits: Sequence[str], mode: str) -> dict[str, dict[str, Scored]]:
    """Metrics and predictions of every split by `labels` and, as far as `mode` goes, by `knn` and `mix`.

    Raises:
        ConfigError: no such split, or no training points that could vote.
    """
    if mode == "labels":
        return {split: {mode: scored} for split, scored in session.evaluate(*splits).items()}
    cfg = session.cfg
    if not len(session.train_rows):
        raise ConfigError(f"predict_mode {mode} needs training points with labels: {cfg.data_dir} has none")
    label_tau, choosable = session.head.score_tau, bool(len(session.val_rows))
    grids = {name: candidates(cfg, name, label_tau, choosable) for name in MODES[1 : MODES.index(mode) + 1]}
    tuned = any(len(votes) > 1 for votes in grids.values())
    deepest = max(vote.k for votes in grids.values() for vote in votes)
    seen = _look(session, dict.fromkeys([*splits, *["val"] * tuned]), deepest)
    found = {split: {"labels": _scored(session, seen[split].points, seen[split].labels)} for split in splits}
    for name, votes in grids.items():
        vote = _choose(session, name, votes, seen.get("val"))
        facts = {"predict_mode": name, "knn_k": vote.k, "knn_weight": vote.weight, "knn_tau": vote.tau}
        for split in splits:
            found[split][name] = _scored(session, seen[split].points, _predict(session, seen[split], vote), facts)
    return found


def _scored(session: Session, points: EvalSet, lists: Predictions, facts: Mapping[str, Any] | None = None) -> Scored:
    return {**session.measure(points, lists), **(facts or {})}, lists


def candidates(cfg: Config, mode: str, label_tau: float | None, choosable: bool) -> list[Vote]:
    """What `mode` may be: one vote if the config names it or there is nothing to choose on, else a small grid."""
    ks = (cfg.knn_k,) if cfg.knn_k else KS if choosable else (K,)
    weights: Sequence[float] = (1.0,)
    if mode == "mix":
        weights = (cfg.knn_weight,) if cfg.knn_weight is not None else WEIGHTS if choosable else (WEIGHT,)
    return [Vote(k, weight, cfg.knn_tau or cfg.tau, label_tau) for weight, k in product(weights, ks)]


def _look(session: Session, names: Iterable[str], k: int) -> dict[str, Seen]:
    sets = [session.points(name) for name in names]
    texts = session.head.n_texts + len(session.train_rows)
    with session.embedding(f"evaluating {' and '.join(s.name for s in sets)}", texts, *sets) as embedder:
        labels = session.retrieve(embedder)
        kind = CosineRetriever if isinstance(session.head, FeatureHead) else Retriever
        memory = kind.of_texts(embedder, session.tokens("trn"), session.train_rows)
        return {points.name: _search(session, points, labels, memory, k) for points in sets}


def _search(session: Session, points: EvalSet, labels: Finder, memory: Retriever, k: int) -> Seen:
    asked = [Wanted(labels, session.cfg.eval_topk, points.filters)]
    asked += [Wanted(memory, k, _itself(points, session.train_rows))]
    return Seen(points, *search_together(asked, points.tokens, points.rows))


def _itself(points: EvalSet, train_rows: Ints) -> csr_matrix | None:
    """[N, M], True where a point is itself among the training points; None where none is."""
    rows = np.flatnonzero(np.isin(points.rows, train_rows)) if points.name == "trn" else np.empty(0, np.int64)
    if not len(rows):
        return None
    cells = rows, np.searchsorted(train_rows, points.rows[rows])
    return csr_matrix((np.ones(len(rows), bool), cells), shape=(len(points.rows), len(train_rows)))


def _choose(session: Session, mode: str, votes: list[Vote], val: Seen | None) -> Vote:
    """The vote with the best `track_metric` on the validation points; of equal ones the first, with least weight."""
    if len(votes) == 1 or val is None:
        log.info("%s: k %d, weight %g, tau %g", mode, votes[0].k, votes[0].weight, votes[0].tau)
        return votes[0]
    metric, relevance = session.cfg.track_metric, session.dataset.trn.relevance[session.train_rows]

    def choose() -> tuple[float, Vote]:
        scored = []
        for vote in votes:
            lists = vote.predict(val.labels, val.neighbours, relevance, session.cfg.eval_topk, val.points.filters)
            scored.append((session.measure_here(val.points, lists)[metric], vote))
        return max(scored, key=lambda one: one[0])

    value, vote = session.world.on_main(choose)
    log.info(
        "%s: k %d, weight %g, tau %g, chosen on %d validation points (%s %.2f)",
        mode, vote.k, vote.weight, vote.tau, len(val.points.rows), metric, value,
    )  # fmt: skip
    return vote


def _predict(session: Session, seen: Seen, vote: Vote) -> Predictions:
    """The lists of all points, each rank making a part."""
    world, n = session.world, len(seen.points.rows)
    own = world.span(n)
    filters = None if seen.points.filters is None else seen.points.filters[own]
    relevance = session.dataset.trn.relevance[session.train_rows]
    lists = vote.predict(seen.labels.part(own), seen.neighbours.part(own), relevance, session.cfg.eval_topk, filters)
    ids, scores = (torch.from_numpy(array).to(world.device) for array in (lists.ids, lists.scores))
    return Predictions(world.gather_rows(ids, n).cpu().numpy(), world.gather_rows(scores, n).cpu().numpy())
