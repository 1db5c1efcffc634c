"""How unsure an ensemble is of every label and of a text as a whole, and how much of that is want of knowledge.

The standard decomposition of an ensemble's entropy, label by label, in nats. Total: the entropy of the mean
probability. Data (aleatoric): the mean of the members' entropies. Knowledge (epistemic): the rest, the mutual
information of label and member, 0 where all members agree. Those of a text are the sums over its labels, which are
taken as independent given the text.

Jiang et al., arXiv 2210.10160, name the setting: ensembles of tree models, uncertainty of labels and instances, under
a beam. What is computed here is the textbook decomposition and makes no claim to be theirs.

M members, N texts, K labels of a text, L labels in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dexml.evaluation.gains import Floats

ROUNDING = 1e-7  # a knowledge part below 0 by less is 0


class UncertaintyError(ValueError):
    """Numbers that are no probabilities of an ensemble."""


def entropy(p: npt.ArrayLike) -> Floats:
    """Of a label with probability p, in nats, of any shape; 0 at 0 and at 1."""
    p = np.asarray(p, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = -p * np.log(p) - (1 - p) * np.log1p(-p)
    return np.where((p > 0) & (p < 1), found, 0.0)


@dataclass(frozen=True)
class Uncertainty:
    """Of every label, in arrays of one shape [...]."""

    mean: Floats
    """mean probability of the members"""
    total: Floats
    data: Floats

    @property
    def knowledge(self) -> Floats:
        """From 0 to the smaller of ln 2 and ln M."""
        return np.asarray(self.total - self.data)

    def of_texts(self) -> Uncertainty:
        """Sums over the last axis; `mean` becomes the expected number of labels."""
        return Uncertainty(*(part.sum(axis=-1) for part in (self.mean, self.total, self.data)))


def decompose(p: npt.ArrayLike) -> Uncertainty:
    """From the probabilities of the members [M, ...].

    Raises:
        UncertaintyError: not all are numbers from 0 to 1.
    """
    p = np.asarray(p, np.float64)
    if p.ndim == 0 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise UncertaintyError("probabilities [members, ...] must be numbers from 0 to 1")
    mean = p.mean(axis=0)
    total, data = entropy(mean), entropy(p).mean(axis=0)
    below = total - data < 0
    if (total - data).min(initial=0) < -ROUNDING:
        raise UncertaintyError("the knowledge part is negative beyond rounding")
    return Uncertainty(mean, total, np.where(below, total, data))


def omitted_bound(n_omitted: npt.ArrayLike, largest: npt.ArrayLike, mass: npt.ArrayLike) -> Floats:
    """[N] the most that labels which were left out can add to a text's total; data and knowledge add no more.

    Entropy is concave, so the total of n labels is at most n times that of their mean probability; and it grows up to
    one half.

    Args:
        n_omitted: [N] how many they are.
        largest: [N] an upper bound of each mean probability.
        mass: [N] one of their sum.
    """
    n = np.asarray(n_omitted, np.float64)
    mean = np.minimum(np.asarray(mass, np.float64) / np.maximum(n, 1), np.asarray(largest, np.float64))
    return n * entropy(np.clip(mean, 0, 0.5))
