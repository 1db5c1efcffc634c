"""Labels as numbers of several digits, one digit for each head of Multi-Head Encoding (arXiv 2412.10182).

The order of the labels gives every label a code 0..L-1; its digits are those of a mixed-radix number, the first head
the most significant. The nodes of a level are the prefixes of codes: `code // stride`. Codes from L on are pads.

L labels, H heads, P the product of their lengths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexml.config import ConfigError
from dexml.data.files import DataError, atomic_write

FORMAT = "dexml-label-codes 1"
Ints = NDArray[np.integer]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelCodes:
    """Checked when it is made: ConfigError unless the lengths have room for all labels and each label has one code."""

    lengths: tuple[int, ...]
    """Of each head, first to last."""
    label_of: Int64
    """[L] label of each code"""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """How the order came about, as JSON can hold it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(map(int, self.lengths)))
        object.__setattr__(self, "label_of", np.ascontiguousarray(self.label_of, np.int64))
        check_room(self.lengths, self.n_labels)
        if not np.array_equal(np.sort(self.label_of), np.arange(self.n_labels)):
            raise ConfigError(f"label codes: an order of {self.n_labels} labels must name each of them once")

    @property
    def n_labels(self) -> int:
        return len(self.label_of)

    @property
    def n_heads(self) -> int:
        return len(self.lengths)

    @property
    def n_pads(self) -> int:
        """P - L: the last codes, which stand for no label."""
        return prod(self.lengths) - self.n_labels

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Codes below a node of each level."""
        return tuple(prod(self.lengths[h + 1 :]) for h in range(self.n_heads))

    @cached_property
    def code_of(self) -> Int64:
        """[L] code of each label"""
        codes = np.empty(self.n_labels, np.int64)
        codes[self.label_of] = np.arange(self.n_labels)
        return codes

    @cached_property
    def n_nodes(self) -> tuple[int, ...]:
        """Of each level, the nodes with labels below them."""
        return tuple(-(-self.n_labels // stride) for stride in self.strides)

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256 over lengths and order: same codes, same hash."""
        return hashlib.sha256(np.array([*self.lengths, *self.label_of], "<i8").tobytes()).hexdigest()

    def encode(self, labels: Ints) -> Int64:
        """Digits [..., H] of these labels."""
        return self.digits(self.code_of[labels])

    def digits(self, codes: Ints) -> Int64:
        """Digits [..., H] of these codes, pads too."""
        return np.asarray(codes, np.int64)[..., None] // np.array(self.strides) % np.array(self.lengths)

    def decode(self, digits: Ints) -> Int64:
        """Labels [...] of digits [..., H], -1 for a pad."""
        return self.labels((np.asarray(digits, np.int64) * np.array(self.strides)).sum(axis=-1))

    def labels(self, codes: Ints) -> Int64:
        """Labels [...] of codes, -1 for a pad or -1."""
        return np.append(self.label_of, -1)[np.where(np.less(codes, self.n_labels), codes, -1)]

    def children(self, level: int, nodes: Ints) -> Int64:
        """Nodes [..., length] of level + 1 below these nodes of a level (0 is head 1), -1 where there are none."""
        width = self.lengths[level + 1]
        below = np.asarray(nodes, np.int64)[..., None] * width + np.arange(width)
        return np.where(below < self.n_nodes[level + 1], below, -1)

    def with_meta(self, **facts: Any) -> LabelCodes:
        """The same codes with more said of them, as `data`, the fingerprint of what they were made for."""
        return replace(self, meta={**self.meta, **facts})

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, in one step."""
        from safetensors.numpy import save

        facts = {"format": FORMAT, "lengths": self.lengths, "hash": self.hash, "meta": self.meta}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(save({"label_of": self.label_of}, {"codes": json.dumps(facts, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path, data: str | None = None) -> LabelCodes:
        """Read what `save` wrote; DataError for a broken or foreign file, or one whose `meta["data"]` is not `data`."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                facts = json.loads((file.metadata() or {})["codes"])
                codes = cls(tuple(facts["lengths"]), file.get_tensor("label_of"), facts["meta"])
                complete = facts["format"] == FORMAT and facts["hash"] == codes.hash
        except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
            raise DataError(f"{path} holds no label codes or not all of them ({error}): make them again") from error
        if not complete:
            raise DataError(f"{path}: its codes are not those it was saved with ({FORMAT}): copy or make it again")
        if data is not None and codes.meta.get("data") != data:
            raise DataError(
                f"{path} was made for other data (fingerprint {codes.meta.get('data')!r} instead of {data!r}): "
                f"delete it to have its codes made again"
            )
        return codes


def check_room(lengths: Sequence[int], n_labels: int) -> None:
    """ConfigError unless these lengths of heads have a code for every label."""
    if len(lengths) < 2 or min(lengths) < 1 or prod(lengths) < n_labels:
        raise ConfigError(
            f"mhe_lengths {'x'.join(map(str, lengths))}: no room for {n_labels} labels; give two or more lengths, "
            f"each at least 1, whose product is {n_labels} or more"
        )
