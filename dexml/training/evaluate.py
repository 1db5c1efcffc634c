"""`dexml eval`: the exported model of a run or a bundle, on any split of its own data or of another folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexml.config import ConfigError
from dexml.distributed import World, launch
from dexml.encoders.weights import load_weights
from dexml.evaluation.calibration import RIVALS, Calibration
from dexml.evaluation.evaluator import measure_fully
from dexml.evaluation.export import prediction_lines, write_lines
from dexml.evaluation.retrieval import Predictions, Retriever, Wanted, search_together
from dexml.hub.bundle import read_calibration
from dexml.index import LabelIndex, recall_at
from dexml.index.kinds import check_kind
from dexml.session import Session
from dexml.training.log import start_log
from dexml.training.modes import Scored, evaluate_modes
from dexml.training.rundir import RunFolder
from dexml.training.target import Target

log = logging.getLogger(__name__)
AGAINST_EXACT = (1, 10, 100)


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate and what to leave behind."""

    target: Target
    split: str
    index: str = ""
    """kind of label index to search with, beside exact search"""
    out: Path | None = None
    """folder of the results; by default that of the run whose own data it is"""
    predictions: Path | None = None
    """file of the predictions as JSON lines"""
    full: bool = False
    """measure everything, see `measure_fully`"""

    def check(self) -> None:
        """Before long work: ConfigError, LabelIndexError, OSError for what would come to nothing in the end."""
        if self.index:
            check_kind(self.index, "asked for")
            if not self.target.cfg.net.startswith("dist-"):
                raise ConfigError(f"--index is for models with a vector for every label, not for {self.target.cfg.net}")
            if self.target.cfg.predict_mode != "labels":
                raise ConfigError(f"--index {self.index} searches labels: it goes with --predict_mode labels")
        if self.predictions is not None and not self.predictions.absolute().parent.is_dir():
            raise ConfigError(f"--predictions {self.predictions}: there is no folder {self.predictions.parent}")
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)

    @property
    def stem(self) -> str:
        """What the names of the files begin with: other than the run's own where the predictions are others."""
        mode = self.target.cfg.predict_mode
        way = "" if mode == self.target.trained.predict_mode else mode
        return "-".join(filter(None, [self.split, way, self.index]))


def evaluate(asked: Evaluation) -> dict[str, dict[str, Any]] | None:
    """Metrics by way of predicting (`labels`, `knn`, `mix`; or `exact` and the kind of index); None on other ranks.

    The last is the one asked for, whose predictions are written; the others are there to compare with.
    """
    asked.check()
    target = asked.target
    world = World.of(launch(target.cfg.num_processes))
    start_log(world.is_main)
    session = Session(target.cfg, world, target.splits)
    load_weights(session.encoder, target.bundle)
    session.head.load_bundle(target.bundle, session.dataset.label_texts)
    if asked.index:
        found = _with_index(session, asked.split, asked.index)
    else:
        if asked.split == "val" and target.cfg.predict_mode != "labels":
            log.warning("knn_k and knn_weight are chosen on val, unless they are given: its figures flatter the vote")
        found = evaluate_modes(session, [asked.split], target.cfg.predict_mode)[asked.split]
    world.on_main(lambda: _write(asked, session, found))
    return {name: metrics for name, (metrics, _) in found.items()} if world.is_main else None


def _with_index(session: Session, split: str, kind: str) -> dict[str, Scored]:
    """Exact search, and a label index of this kind with its recall against exact search."""
    points, k = session.points(split), session.cfg.eval_topk
    with session.embedding(f"evaluating {split}", session.head.n_texts, points) as embedder:
        exact = session.retrieve(embedder)
        assert isinstance(exact, Retriever)
        other = exact.through(lambda label_LD: LabelIndex.build(label_LD, kind=kind))
        lists = search_together(
            [Wanted(each, k, points.filters) for each in (exact, other)], points.tokens, points.rows
        )
    found = {name: (session.measure(points, each), each) for name, each in zip(("exact", kind), lists, strict=True)}
    recalls = {f"recall_of_exact@{j}": 100 * recall_at(lists[1].ids, lists[0].ids, j) for j in AGAINST_EXACT if j <= k}
    found[kind][0].update(recalls)
    return found


def _write(asked: Evaluation, session: Session, found: dict[str, Scored]) -> None:
    """Metrics and scores into the folder of results, if there is one, and the predictions that were asked for."""
    points = session.points(asked.split)
    name, (_, predictions) = list(found.items())[-1]
    whole = predictions.ids.shape[1] >= min(RIVALS, session.dataset.n_labels)
    calibration = read_calibration(asked.target.bundle) if name == "labels" and whole else None
    if asked.full:
        for way, (metrics, lists) in found.items():
            likely = calibration if way == "labels" else None
            metrics |= measure_fully(points, lists, session.scale, likely)
    out = asked.out or asked.target.run
    if out is not None:
        folder = RunFolder(session.cfg, out)
        folder.write_table(asked.stem, {name: metrics for name, (metrics, _) in found.items()})
        folder.write_scores(asked.stem, predictions.to_csr(session.dataset.n_labels))
        log.info("%s: %s_metrics.json, %s_metrics.tsv, %s_score_mat.npz", out, *[asked.stem] * 3)
    if asked.predictions is not None:
        _write_predictions(asked.predictions, session, asked.split, predictions, calibration)


def _write_predictions(
    path: Path, session: Session, name: str, predictions: Predictions, calibration: Calibration | None
) -> None:
    points = session.points(name)
    split = session.dataset.splits["trn" if name == "val" else name]
    lines = prediction_lines(
        split.texts,
        points.rows.tolist(),
        predictions,
        session.dataset.label_texts,
        probability=None if calibration is None else calibration.probability,
        truth=points.relevance,
    )
    write_lines(path, lines)
    log.info("%s: the predictions of %d points", path, len(points.rows))
