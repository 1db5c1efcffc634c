"""The members of an ensemble, from bundles: whatever head they have, as long as its scores can be probabilities.

n texts, D width of a vector, K labels of a text, L labels in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, load_model

from dexml.config import Config, ConfigError, load_config
from dexml.data.tokens import TextTokens
from dexml.encoders.encoder import Encoder
from dexml.evaluation.gains import Floats
from dexml.evaluation.retrieval import Embeddings, Finder
from dexml.evaluation.topk import Ids
from dexml.evaluation.uncertainty_texts import Listed, Member
from dexml.heads.attentionhead import StateFinder
from dexml.heads.features import FeatureHead
from dexml.heads.plt_labelwise import LabelwisePLT
from dexml.heads.probabilities import Certified, Probabilistic
from dexml.hub.bundle import SETTINGS, Bundle, read_embeddings
from dexml.hub.statemembers import StateMember, TreeStateMember
from dexml.index.search import FlatSearcher

BLOCK = 512  # texts scored at a time
STATE = "state.json"  # of a checkpoint


@dataclass(frozen=True)
class Loaded:
    """A member, its label texts, and what tells it from others."""

    member: Member
    labels: Sequence[str]
    facts: dict[str, Any]


def load_member(path: Path, device: str | None = None) -> Loaded:
    """The model of a run or bundle, or as it was at a checkpoint of a run.

    Raises:
        ConfigError, DataError: no such bundle, or one whose scores are no probabilities.
    """
    snapshot = (path / STATE).is_file()
    run = path.parents[1] if snapshot else path
    folder = run / "best" if (run / "best").is_dir() else run
    bundle = Bundle.read(folder, device, amp=False, trust_remote_code=False)
    cfg, head = load_config([folder / SETTINGS]), getattr(bundle.finder, "head", None)
    if snapshot:
        _go_back(path, head)
    facts = {"path": str(path), "net": cfg.net, "seed": cfg.seed, "bootstrap_seed": cfg.bootstrap_seed}
    tree = getattr(head, "tree", None)
    if tree is not None:
        facts["tree"] = tree.hash
    return Loaded(_member(folder, bundle, cfg), bundle.labels, facts)


def _member(folder: Path, bundle: Bundle, cfg: Config) -> Member:
    if isinstance(bundle.finder, StateFinder):
        if isinstance(head := bundle.finder.head, LabelwisePLT):
            return TreeStateMember(bundle.encoder, bundle.finder, head)
        return StateMember(bundle.encoder, bundle.finder)
    if bundle.finder is not None:
        return HeadMember(folder, bundle.encoder, bundle.finder)
    return VectorMember(folder, bundle.encoder, cfg)


def _go_back(checkpoint: Path, head: object) -> None:
    """Gives a head the weights of a checkpoint, of however many processes."""
    if not isinstance(head, FeatureHead):
        raise ConfigError(f"{checkpoint}: only nets with layers of their own can be read from checkpoints")
    load_model(head.model, checkpoint / "model.safetensors")
    shards = [load_file(file) for file in sorted(checkpoint.glob("shard-*.safetensors"), key=_rank)]
    with torch.no_grad():
        for name, own in head.own.items():
            own.copy_(torch.cat([shard[f"weight.{name}"] for shard in shards]))


def _rank(shard: Path) -> int:
    return int(shard.stem.removeprefix("shard-"))


class HeadMember:
    """A head with layers of its own."""

    def __init__(self, folder: Path, encoder: Encoder, finder: Finder) -> None:
        head: object = getattr(finder, "head", None)
        if not isinstance(head, Probabilistic):
            raise ConfigError(f"{folder}: the scores of its head are no probabilities of labels")
        self.head: Probabilistic = head
        self.encoder, self.embedder, self.n_labels = encoder, finder.embedder, finder.n_items

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = TextTokens(texts, self.encoder.tokenizer, self.encoder.max_len)
        return self.embedder.part(tokens, np.arange(len(texts)))

    @torch.no_grad()
    def find(self, encoded: torch.Tensor, k: int) -> Listed:
        parts = [self._find(z, k) for z in encoded.split(BLOCK)]
        return Listed(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _find(self, z_nD: torch.Tensor, k: int) -> tuple[Ids, Floats, Floats, Floats]:
        if isinstance(self.head, Certified):
            ids, largest, mass = self.head.probable(z_nD, k)
        else:  # nothing is known of the labels that the search has not found
            ids = self.head.best(z_nD, k)[0]
            largest = torch.ones(len(ids))
            mass = float(self.n_labels) - (ids >= 0).sum(1).double()
        arrays = (ids, self.head.score(z_nD, ids), largest, mass)
        return tuple(array.cpu().numpy() for array in arrays)  # type: ignore[return-value]

    @torch.no_grad()
    def score(self, encoded: torch.Tensor, ids: Ids) -> Floats:
        wanted = torch.from_numpy(ids).to(encoded.device)
        parts = zip(encoded.split(BLOCK), wanted.split(BLOCK), strict=True)
        return np.concatenate([self.head.score(z, part).double().cpu().numpy() for z, part in parts])


class VectorMember:
    """A vector for every label, trained with binary cross-entropy: p = sigmoid(score / tau)."""

    def __init__(self, folder: Path, encoder: Encoder, cfg: Config) -> None:
        if cfg.loss_criterion != "bce":
            raise ConfigError(
                f"{folder}: scores trained with loss_criterion {cfg.loss_criterion} are no probabilities: "
                f"train with bce"
            )
        self.encoder, self.tau, self.label_LD = encoder, cfg.tau, read_embeddings(folder, slice(None))
        self.searcher = FlatSearcher(self.label_LD)

    def encode(self, texts: Sequence[str]) -> Embeddings:
        return self.encoder.encode(texts)

    def find(self, encoded: Embeddings, k: int) -> Listed:
        """The most probable of all, so the last of a list bounds the rest."""
        ids, scores = self.searcher.search(encoded, min(k, len(self.label_LD)))
        p = _sigmoid(scores / self.tau)
        left = len(self.label_LD) - ids.shape[1]
        last = p[:, -1] * (left > 0)
        return Listed(ids, p, last, last * left)

    def score(self, encoded: Embeddings, ids: Ids) -> Floats:
        parts = [
            np.einsum("nd,nkd->nk", encoded[i : i + 16], self.label_LD[ids[i : i + 16]]) for i in range(0, len(ids), 16)
        ]
        return np.where(ids >= 0, _sigmoid(np.concatenate(parts) / self.tau), 0.0)


def _sigmoid(logits: npt.ArrayLike) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64))))
