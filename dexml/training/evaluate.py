"""`dexml eval`: the exported model of a run, on any split."""

from __future__ import annotations

from typing import Any

from scipy.sparse import save_npz

from dexml.config import Config, ConfigError
from dexml.distributed import World, launch
from dexml.encoders.weights import load_weights
from dexml.session import Session
from dexml.training.rundir import RunFolder, start_log


def evaluate_run(cfg: Config, split: str) -> dict[str, Any] | None:
    """Metrics of the model in `<run>/best` on `trn`, `val`, `tst` or `dev`; None on ranks other than 0.

    Also writes `<split>_metrics.tsv` and `<split>_score_mat.npz` into the run's folder.
    """
    world = World.of(launch(cfg.num_processes))
    start_log(world.is_main)
    folder = RunFolder(cfg)
    if not (folder.best / "model.safetensors").exists():
        raise ConfigError(f"{folder.best} holds no exported model: has the run of this config ended?")
    session = Session(cfg, world)
    load_weights(session.encoder, folder.best)
    metrics, predictions = session.evaluate(split)[split]
    if not world.is_main:
        return None
    folder.write_split(split, metrics)
    save_npz(folder.path / f"{split}_score_mat.npz", predictions.to_csr(session.dataset.n_labels))
    return metrics
