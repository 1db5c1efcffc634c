"""Float64 steps and a search of LightXML on every rank: `python -m tests.heads.lightxml_step ROOT OUT` saves them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.distributed import GradientReduction, World, launch, leave
from dexml.evaluation.retrieval import Embedder
from dexml.heads.lightxml import GroupedLightXML, LightXML
from dexml.heads.lightxml_plain import PlainLightXML
from dexml.heads.make import make_head
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.step import Stepper
from tests.helpers.models import toy_config

NET = {"net": "lightxml", "doc_layers": 2, "doc_dropout": 0.2, "lxml_cluster_size": 5, "lxml_topb": 2, "lxml_dim": 6}
PLAIN = {"lxml_mode": "plain"} | {key: Config.model_fields[key].default for key in NET if key.startswith("lxml")}
SHARDED = {"lxml_table": "sharded"}
SWITCHES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "replace": {"lxml_overflow": "replace", "lxml_group_weight": 2.0},
    "drop": {"lxml_overflow": "drop", "lxml_topb": 1},
    "label_only": {"lxml_encoder_grad": "label_only"},
    "group_only": {"lxml_encoder_grad": "group_only"},
    "gate": {"lxml_se": "gate"},
    "affine": {"lxml_se": "affine", "lxml_exact": True},
    "tokens": {"lxml_tokens": "both"},
    "tokens-ranker": {"lxml_tokens": "ranker", "lxml_se": "gate"},
    "random": {"lxml_random_clusters": 0.2, "lxml_random_labels": 3},
    "plain": PLAIN,
    "plain-tokens": PLAIN | {"lxml_tokens": "both", "lxml_se": "gate"},
}
CASES = SWITCHES | {f"{name}-sharded": keys | SHARDED for name, keys in SWITCHES.items()}
STEPS, SEARCHED = (11, 2, 11), 20  # points of each update, two too few for three ranks; texts searched for


def steps(session: Session, case: str) -> dict[str, np.ndarray]:
    cfg = config(session.dataset.path.parents[1], **CASES[case])
    world, tokens = session.world, session.tokens
    encoder = copy.deepcopy(session.encoder).double().train()
    head = make_head(cfg, encoder, session.dataset.n_labels, tokens, world)
    assert isinstance(head, GroupedLightXML | PlainLightXML)
    head.learn_from(session.training_split)
    reduction = GradientReduction(world, head.shared)
    batch = Batch(np.arange(3, 14) * 11 % 200, epoch=1, step=7)
    stats = head.accumulate(head.prepare(batch), reduction=reduction if world.size > 1 else None)
    reduction.finish()
    found = {"loss": np.array(stats.loss)}
    found |= {f"gradient {n}": p.grad.numpy().copy() for n, p in head.model.named_parameters() if p.grad is not None}
    found |= {f"gradient {name}": _whole(head, name, p.grad) for name, p in head.own.items()}
    stepper = Stepper(cfg.model_copy(update={"max_grad_norm": 0.5}), head, world, total=10)
    stepper.optimizer.zero_grad()
    for n in STEPS:
        found["norm"] = np.array(stepper.step([head.prepare(batch.split(n)[0])], TrainState()).norm)
    found |= {f"updated {name}": p.detach().numpy() for name, p in head.model.named_parameters()}
    found |= {f"updated {name}": _whole(head, name, p) for name, p in head.own.items()}
    embedder = Embedder(encoder.eval(), world, 64, 4096)
    predictions = head.retriever(embedder).search(tokens("tst"), np.arange(SEARCHED), 7)
    vectors = torch.from_numpy(embedder.whole(tokens("tst"), np.arange(SEARCHED))).double()
    score = head.score(vectors, torch.from_numpy(predictions.ids))
    return found | {"ids": predictions.ids, "scores": predictions.scores, "score": score.numpy()}


def config(root: Path, **keys: Any) -> Config:
    return Config(**toy_config(root, **(NET | keys)))


def _whole(head: LightXML, name: str, own: torch.Tensor | None) -> np.ndarray:
    assert own is not None
    return head.world.gather_rows(own.detach(), head.sizes[name]).numpy()


def main() -> None:
    root, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    world = World.of(launch())
    sessions = {tokens: Session(config(root, lxml_tokens=tokens), world) for tokens in ("none", "both")}
    found = {}
    for case, keys in CASES.items():
        session = sessions["none" if keys.get("lxml_tokens", "none") == "none" else "both"]
        found |= {f"{case}/{name}": value for name, value in steps(session, case).items()}
    if world.is_main:
        np.savez(out, **found)
    leave()


if __name__ == "__main__":
    main()
