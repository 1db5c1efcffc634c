"""`dexml eval`: the exported model of a run, on any split."""

from __future__ import annotations

from typing import Any

from dexml.config import Config
from dexml.distributed import World, launch
from dexml.encoders.weights import load_weights
from dexml.session import Session
from dexml.training.log import start_log
from dexml.training.rundir import RunFolder


def evaluate_run(cfg: Config, split: str) -> dict[str, Any] | None:
    """Metrics of the model in `<run>/best` on `trn`, `val`, `tst` or `dev`; None on ranks other than 0.

    Also writes `<split>_metrics.tsv` and `<split>_score_mat.npz` into the run's folder.
    """
    world = World.of(launch(cfg.num_processes))
    start_log(world.is_main)
    folder = RunFolder(cfg)
    folder.check_model()
    session = Session(cfg, world)
    load_weights(session.encoder, folder.best)
    metrics, predictions = session.evaluate(split)[split]
    if not world.is_main:
        return None
    folder.write_split(split, metrics)
    folder.write_scores(split, predictions.to_csr(session.dataset.n_labels))
    return metrics
