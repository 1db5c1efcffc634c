"""Loading a bundle whose labels are found by a head with layers of its own, not by an index over vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dexml.config import load_config
from dexml.data.tokens import Tokens
from dexml.distributed import World
from dexml.encoders.encoder import Encoder
from dexml.encoders.pretrained import build_encoder
from dexml.evaluation.retrieval import Embedder, Finder
from dexml.heads.headfile import read_digests
from dexml.heads.make import make_head
from dexml.hub.bundle import SETTINGS, check_digests

ROWS, TOKENS = 256, 16384  # of texts encoded at a time


def load_headed(
    folder: Path, labels: Sequence[str], device: str | None, amp: bool, trust_remote_code: bool
) -> tuple[Encoder, Finder]:
    """The encoder, for vectors of texts, and the head on top of it, for labels."""
    check_digests(folder, read_digests(folder))
    encoder = Encoder.load(folder, device=device, amp=amp, trust_remote_code=trust_remote_code)
    own = {"tf": str(folder), "tf_token_type": str(folder), "amp_encode": amp, "save": False}
    cfg = load_config([folder / SETTINGS], {**own, "precision": "auto", "trust_remote_code": trust_remote_code})
    world = World(device=torch.device(encoder.model.device))
    model = build_encoder(cfg, world.device)
    model.tf = encoder.model.tf  # once in memory, not twice
    head = make_head(cfg, model.eval(), len(labels), _no_tokens, world)
    head.load_bundle(folder, labels)
    return encoder, head.retriever(Embedder(model, world, ROWS, TOKENS))


def _no_tokens(part: str) -> Tokens:
    raise AssertionError(f"a bundle has no texts of {part}")
