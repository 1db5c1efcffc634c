"""Trees, codes and whatever else of labels is worked out once: built by rank 0, kept beside the data, read by all.

N training points, L labels.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dexml.data.dataset import Split
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.heads.base import OpenTokens
from dexml.heads.label_features import TfIdf, concat, cooccurrence, pifa, with_fallback
from dexml.heads.pairs import Features
from dexml.heads.treefile import data_fingerprint

log = logging.getLogger(__name__)
FOLDER = "structures"
LabelFeatures = Literal["pifa", "pifa+cooc", "text"]


class Structure(Protocol):
    """A `LabelTree`, `LabelCodes`: an object with one file."""

    @property
    def hash(self) -> str: ...

    def with_meta(self, **facts: Any) -> Self: ...

    def save(self, path: str | Path) -> None: ...


S = TypeVar("S", bound=Structure)


def cached(
    world: World,
    folder: Path,
    name: str,
    facts: Mapping[str, Any],
    build: Callable[[], S],
    load: Callable[[Path, str], S],
) -> S:
    """What `build` makes, or made before from the same `facts`, the same on every rank.

    Args:
        folder: of the data; the structure is kept in a file below it.
        facts: all that it is made of, as JSON can hold it, see `facts_of`.
        load: reads a file if the digest of its facts is the second argument, else raises a ValueError.
    Raises:
        DataError: the file cannot be written, or a rank reads another one than rank 0. Whatever `build` raises on
            rank 0 is raised on every rank.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = folder / FOLDER / f"{name}-{digest[:16]}.safetensors"

    def make() -> str:
        if path.exists():
            try:
                return load(path, digest).hash
            except ValueError as error:
                log.warning("%s: it is built again", error)
        log.info("building %s", path)
        built = build().with_meta(data=digest)
        built.save(path)
        return built.hash

    wanted, read = world.on_main(make), _attempt(lambda: load(path, digest))
    told = world.gather_objects(read if isinstance(read, str) else read.hash)
    others = [f"rank {rank}: {one}" for rank, one in enumerate(told) if one != wanted]
    if isinstance(read, str) or others:
        raise DataError(
            f"{path}: not every process reads what rank 0 has written ({'; '.join(others)}): "
            f"the data folder must be one that all machines share"
        )
    return read


def _attempt(load: Callable[[], S]) -> S | str:
    try:
        return load()
    except (ValueError, OSError) as error:
        return str(error)


def facts_of(split: Split, tokens: OpenTokens, **settings: Any) -> dict[str, Any]:
    """Settings, and digests of the texts and the relevance that a structure is learnt from."""
    cells = data_fingerprint([], split.relevance)
    return {"points": tokens("trn").fingerprint, "labels": tokens("labels").fingerprint, "cells": cells, **settings}


def label_features(kind: LabelFeatures, split: Split, tokens: OpenTokens) -> Features:
    """Unit rows [L, V] to cluster labels by: `pifa` of the points' TF-IDF, and of its own text for a label without
    points; `pifa+cooc`, beside it the labels that stand with it (in the manner of Bonsai, arXiv 1904.08249); `text`,
    the TF-IDF of the label texts alone.
    """
    points, labels = tokens("trn"), tokens("labels")
    if kind == "text":
        return _without_common(TfIdf.fit(labels)).transform(labels)
    rows = np.flatnonzero(np.diff(split.relevance.indptr))
    relevance = split.relevance[rows]
    tfidf = _without_common(TfIdf.fit(points, rows))
    features = with_fallback(pifa(relevance, tfidf.transform(points, rows)), tfidf.transform(labels))
    return features if kind == "pifa" else concat([features, cooccurrence(relevance)])


def _without_common(tfidf: TfIdf) -> TfIdf:
    """Without tokens that every text has, as [CLS] and [SEP]."""
    return TfIdf(np.where(tfidf.idf > 1, tfidf.idf, 0))


class Belonging(nn.Module):
    """A module whose weights mean something with one structure only: those of another are refused when loaded."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure

    def get_extra_state(self) -> Tensor:
        return torch.frombuffer(bytearray.fromhex(self.structure.hash), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        if not torch.equal(state.cpu(), self.get_extra_state()):
            raise DataError(
                "these weights belong to labels that were grouped or numbered in another way (the hash of their tree "
                "or codes differs): start over with --resume never"
            )
