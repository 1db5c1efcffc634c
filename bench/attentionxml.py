"""How much faster a step is down a label tree than with every label looking at every text.

    python -m bench.attentionxml                                            synthetic, seconds
    python -m bench.attentionxml --config configs/YSO-Finna-EN/attentionxml.yaml    with its data: flat and each level
    python -m bench.attentionxml --config configs/YSO-Finna-EN/plt-labelwise.yaml   flat and a label-wise plt

CPU seconds of one thread, sides in turns; medians, and ratios taken within a turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch

from bench.common import positive
from dexml.config import FIELDS, Config, load_config
from dexml.configkeys.attentionxml import AttentionXMLKeys
from dexml.configkeys.plt import PLTKeys
from dexml.data.batching import epoch_batches
from dexml.data.dataset import Split
from dexml.distributed import World
from dexml.encoders.bilstm import BiLSTM, BiLSTMConfig
from dexml.encoders.states import StateEncoder
from dexml.evaluation.retrieval import Embedder
from dexml.heads.attention import groups
from dexml.heads.attentionloss import full_bce
from dexml.heads.attentionnet import SharedNet
from dexml.heads.attentionxml import NextLevel
from dexml.heads.attentionxmltree import LevelSplit, n_levels, tree_of
from dexml.heads.candidates import bce_sum
from dexml.heads.features import FeatureHead, Positives
from dexml.heads.shortlists import Shortlists
from dexml.session import Session
from dexml.training.checkpoint import TrainState
from dexml.training.lazyadam import LazyAdam
from dexml.training.step import Stepper

TEXTS, TOKENS, WIDTH, WORDS = 16, 60, 64, 1000
POSITIVES = 5
SIZES = ((2048, 128, 3), (8192, 512, 6))  # labels, candidates, and by how much the second must be faster
Step = Callable[[], None]


def synthetic(n_labels: int, n_cand: int) -> dict[str, Step]:
    """A whole step, flat and with candidates: encoder, loss, gradient, update."""
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(1, WORDS, (TEXTS, TOKENS)))
    lengths = np.full(TEXTS, TOKENS)
    labels = np.sort(rng.integers(0, n_labels, (TEXTS, POSITIVES)), 1)
    positives = Positives(np.arange(TEXTS + 1) * POSITIVES, labels.ravel())
    nothing = Positives(np.zeros(TEXTS + 1, np.int64), np.zeros(0, np.int64))
    cand = torch.from_numpy(np.stack([rng.choice(n_labels, n_cand, replace=False) for _ in range(TEXTS)]))
    target = torch.zeros(cand.shape)

    def side(loss: Callable[[SharedNet, torch.Tensor], torch.Tensor], sparse: bool) -> Step:
        torch.manual_seed(0)
        encoder = StateEncoder(BiLSTM(BiLSTMConfig(WORDS, WIDTH, WIDTH))).train()
        net = SharedNet(n_labels, WIDTH, [WIDTH], sparse)
        optimizer = LazyAdam([*encoder.parameters(), *net.parameters()])
        keys = torch.arange(TEXTS, dtype=torch.int32)

        def step() -> None:
            optimizer.zero_grad()
            loss(net, encoder(ids, torch.from_numpy(lengths), keys)).backward()
            optimizer.step()

        return step

    def flat(net: SharedNet, states: torch.Tensor) -> torch.Tensor:
        return full_bce(net, states, lengths, positives, nothing, n_labels) / (TEXTS * n_labels)

    def tree(net: SharedNet, states: torch.Tensor) -> torch.Tensor:
        total = states.new_zeros(())
        for texts, layout in groups(lengths):
            total = total + bce_sum(net.candidates(layout.take(states), layout.mask, cand[texts]), target[texts])
        return total / cand.numel()

    return {"flat": side(flat, False), "candidates": side(tree, True)}


class AnyParents(NextLevel):
    """A level whose texts go on with any nodes: for its steps it does not matter which."""

    def fit(self, split: Split) -> None:
        self._make(split.tree if isinstance(split, LevelSplit) else tree_of(self.cfg, split, self.tokens, self.world))
        n = len(self.below.first)
        drawn = np.random.default_rng(0).integers(0, n, (len(self.query_tokens), 1)) + np.arange(self.beam)
        self.shortlist = Shortlists((drawn % n).astype(np.int32), np.ones(drawn.shape, np.float32))

    def fit_structure(self, embedder: Embedder) -> None: ...


def of_config(file: Path, words: Sequence[str]) -> dict[str, Step]:
    """Steps of the flat net and of every level of a config, or of its label tree, on its data."""
    tree = load_config([file], words)
    of_trees = {key: FIELDS[key].default for group in (AttentionXMLKeys, PLTKeys) for key in group.model_fields}
    sides = {"flat": Config(**{**tree.to_dict(), **of_trees, "net": "bilstm"})}
    if tree.net == "attentionxml":
        sides |= {f"level {i}": tree.model_copy(update={"train_level": i}) for i in range(n_levels(tree) - 1)}
        sides[f"level {n_levels(tree) - 1}"] = tree
    else:
        sides["tree"] = tree
    return {name: _of_run(cfg) for name, cfg in sides.items()}


def _of_run(cfg: Config) -> Step:
    world = World()
    session = Session(cfg, world)
    head: FeatureHead = session.head  # type: ignore[assignment]
    if isinstance(head, NextLevel):
        head = AnyParents(cfg, session.encoder, session.dataset.n_labels, session.tokens, world)
    head.learn_from(session.training_split)
    session.encoder.train()
    stepper, state = Stepper(cfg, head, world, total=1000), TrainState()
    batches = (batch for epoch in count() for batch in epoch_batches(session.train_rows, cfg.bsz, cfg.seed, epoch))

    def step() -> None:
        stepper.step([head.prepare(next(batches))], state)

    return step


def turns(sides: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each side, turn by turn."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        step()
    for _ in range(repeats):
        for name, step in sides.items():
            began = time.process_time()
            step()
            spent[name].append(time.process_time() - began)
    return spent


def ratios(spent: dict[str, list[float]]) -> dict[str, float]:
    """Median of each side, and of all others together how often they go into the first."""
    first, *others = spent.values()
    found = {name: statistics.median(seconds) for name, seconds in spent.items()}
    together = [sum(turn) for turn in zip(*others, strict=True)]
    found["first / others"] = statistics.median(a / b for a, b in zip(first, together, strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, help="of attentionxml or a label-wise plt: its data, flat and down the tree"
    )
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args, words = parser.parse_known_args()
    torch.set_num_threads(1)
    if args.config:
        found = {str(args.config): ratios(turns(of_config(args.config, ["--num_threads", "1", *words]), args.repeats))}
    else:
        found = {f"{n} labels, {s} candidates": ratios(turns(synthetic(n, s), args.repeats)) for n, s, _ in SIZES}
    for name, figures in found.items():
        print(name, *(f"{side}: {value:.3g}" for side, value in figures.items()), sep="  ")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
