"""What an ensemble says of texts: the labels that any member finds, their probabilities, and what was left out.

M members, N texts, n of a block, K labels of a text, k of a member's list, L labels in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats
from dexml.evaluation.topk import Ids
from dexml.evaluation.uncertainty import Uncertainty, decompose, omitted_bound

Mode = Literal["complete", "zero"]
"""A label that a member has not found: ask the member for it, or take 0 (which makes disagreement of not finding)."""
LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Listed:
    """A member's labels of n texts."""

    ids: Ids
    """[n, k], -1 behind the last"""
    p: Floats
    """[n, k] their probabilities"""
    omitted_max: Floats
    """[n] no other label has a higher one"""
    omitted_mass: Floats
    """[n] nor do the others sum to more"""


class Member(Protocol):
    """A model of the ensemble."""

    def encode(self, texts: Sequence[str]) -> Any:
        """What the other two take for these texts."""

    def find(self, encoded: Any, k: int) -> Listed: ...

    def score(self, encoded: Any, ids: Ids) -> Floats:
        """[n, K] the probabilities of these labels, 0 for -1."""


@dataclass(frozen=True)
class Readings:
    """Of N texts."""

    ids: Ids
    """[N, K] the union of the members' labels, ascending, then -1"""
    of_labels: Uncertainty
    """[N, K], 0 for -1"""
    first: Floats
    """[N, K] probabilities of the first member"""
    best: Ids
    """[M, N, k] the lists of the members, best first"""
    omitted_max: Floats
    """[N] the most that the ensemble's mean can be for a label left out"""
    omitted_mass: Floats
    """[N] the most that these means can sum to"""
    n_labels: int

    @property
    def counts(self) -> Ids:
        """[N] labels of each text."""
        return (self.ids >= 0).sum(axis=1)

    @property
    def bound(self) -> Floats:
        """[N] the most that labels left out can add to each text's total."""
        return omitted_bound(self.n_labels - self.counts, self.omitted_max, self.omitted_mass)

    def ranked(self) -> Ids:
        """[N, K] places of `ids` by mean probability, of equals the smaller id first, padding last."""
        return np.lexsort((self.ids, -self.of_labels.mean, self.ids < 0), axis=-1)

    @classmethod
    def joined(cls, parts: Sequence[Readings]) -> Readings:
        """Those of blocks of texts, one after the other."""
        width = max(part.ids.shape[1] for part in parts)

        def wide(arrays: Iterable[Any], fill: float = 0) -> Any:
            return np.concatenate([np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=fill) for a in arrays])

        fields = ("mean", "total", "data")
        return cls(
            wide((part.ids for part in parts), -1),
            Uncertainty(*(wide(getattr(part.of_labels, name) for part in parts) for name in fields)),
            wide(part.first for part in parts),
            np.concatenate([part.best for part in parts], axis=1),
            np.concatenate([part.omitted_max for part in parts]),
            np.concatenate([part.omitted_mass for part in parts]),
            parts[0].n_labels,
        )


def read(members: Sequence[Member], texts: Sequence[str], k: int, n_labels: int, mode: Mode = "complete") -> Readings:
    """What the members say of n texts, each looking for its k best labels."""
    encoded = [member.encode(texts) for member in members]
    lists = [member.find(z, k) for member, z in zip(members, encoded, strict=True)]
    ids = union([found.ids for found in lists])
    if mode == "zero":
        p = np.stack([own_or_zero(ids, found) for found in lists])
    else:
        p = np.stack([member.score(z, ids) for member, z in zip(members, encoded, strict=True)])
    of_labels = decompose(np.where(ids >= 0, p, 0))
    omitted_max, omitted_mass = (
        np.mean([getattr(found, name) for found in lists], axis=0) for name in ("omitted_max", "omitted_mass")
    )
    return Readings(ids, of_labels, p[0], np.stack([found.ids for found in lists]), omitted_max, omitted_mass, n_labels)


def union(lists: Sequence[npt.ArrayLike]) -> Ids:
    """[n, K] the labels in any of the lists [n, k], ascending, then -1; K is k or more."""
    ids = np.concatenate([np.asarray(one, np.int64) for one in lists], axis=1)
    k = ids.shape[1] // len(lists)
    ids = np.sort(np.where(ids < 0, LAST, ids), axis=1)
    ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = LAST
    ids.sort(axis=1)
    widest = int((ids < LAST).sum(axis=1).max(initial=k))
    return np.where(ids == LAST, -1, ids)[:, :widest]


def own_or_zero(ids: Ids, found: Listed) -> Floats:
    """[n, K] the member's probabilities of `ids` [n, K] where it has found them, else 0."""
    rows = np.arange(len(ids))[:, None] * (max(ids.max(initial=0), found.ids.max(initial=0)) + 2) + 1
    keys, known = (rows + ids).ravel(), (rows + found.ids).ravel()  # -1 has the key of no label
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], keys).clip(max=len(known) - 1)
    hit = (known[order][place] == keys) & (ids.ravel() >= 0)
    return np.where(hit, np.asarray(found.p, np.float64).ravel()[order[place]], 0.0).reshape(ids.shape)
