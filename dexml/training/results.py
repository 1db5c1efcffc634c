"""What a run makes of its model: a bundle, and one line of metrics for the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.encoder import Encoder
from dexml.evaluation.calibration import Calibration, CalibrationError, candidates
from dexml.evaluation.evaluator import EvalSet
from dexml.evaluation.retrieval import Predictions
from dexml.hub.bundle import fill_bundle
from dexml.session import Session
from dexml.training.directory import write_directory
from dexml.training.rundir import RunFolder

log = logging.getLogger(__name__)
SHOWN = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@5", "R@10", "R@100")


def short(metrics: Mapping[str, Any]) -> str:
    """The metrics that fit a line."""
    return ", ".join(f"{name} {metrics[name]:.2f}" for name in SHOWN if name in metrics)


def calibrate(points: EvalSet, predictions: Predictions) -> Calibration | None:
    """Probabilities for the scores of lists, from how often they are right; None, told in the log, where none fit."""
    try:
        return Calibration.fit(*candidates(predictions.ids, predictions.scores, points.relevance))
    except CalibrationError as error:
        log.warning("scores stay without probabilities: %s", error)
        return None


def export(session: Session, folder: RunFolder, calibration: Calibration | None = None) -> None:
    """Writes the model and its labels to `best/`; every rank takes part in embedding the labels.

    In float32, as a loaded bundle will embed the texts it is asked for.
    """
    cfg = session.cfg
    session.encoder.precision = "fp32"
    write_head = session.head.bundle(session.embedder())

    def write() -> None:
        encoder = Encoder(session.encoder.plain(), load_tokenizer(cfg.tokenizer_name), cfg.tf_max_len)
        texts = session.dataset.label_texts
        write_directory(folder.best, lambda path: fill_bundle(path, encoder, texts, write_head, cfg, calibration))
        log.info("bundle: %s", folder.best)

    session.world.on_main(write)
