"""The levels of AttentionXML as runs, one after the other: each of the upper ones is a run in a folder of its own.

Finished ones are skipped, a killed one goes on from its newest checkpoint: they are runs like any other.
"""

from __future__ import annotations

from typing import Any

from dexml.config import Config
from dexml.heads.attentionxmltree import depths_of, n_levels
from dexml.heads.treebuild import n_clusters


def upper_levels(cfg: Config, n_labels: int) -> list[Config]:
    """What is to be trained before the run of `cfg`, coarsest first; nothing for other nets, and for a level alone.

    Models are chosen by nDCG@5 of the nodes.
    """
    if cfg.net != "attentionxml" or cfg.train_level is not None:
        return []
    depths = depths_of(cfg)
    sizes = [2**depth for depth in depths] if depths else [n_clusters(n_labels, cfg.cluster_size)]
    return [_level(cfg, level, size) for level, size in enumerate(sizes[: n_levels(cfg) - 1])]


def _level(cfg: Config, level: int, n_nodes: int) -> Config:
    depth = min(5, n_nodes)
    changes: dict[str, Any] = {
        "expname": f"{cfg.expname}/level-{level}",
        "train_level": level,
        "save": True,
        "resume": "auto",
        "eval_topk": min(cfg.eval_topk, n_nodes),
        "track_metric": f"nDCG@{depth}",
    }
    if level == 0 and cfg.first_swa_start is not None:
        changes["swa_start"] = cfg.first_swa_start
    return Config(**{**cfg.to_dict(), **changes})
