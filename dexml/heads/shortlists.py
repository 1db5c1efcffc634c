"""Which nodes of a level a text goes on with, and which nodes below them it is compared with (AttentionXML).

B texts, C nodes kept of the level above, S candidates below them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexml.data.batching import Ints, mix64
from dexml.data.files import DataError, atomic_write
from dexml.distributed import World
from dexml.evaluation.retrieval import BLOCK, Lists
from dexml.heads.features import Positives
from dexml.heads.tree import LabelTree
from dexml.training.progress import bar

IDS, SCORES, FACTS = "shortlist-ids.npy", "shortlist-scores.npy", "shortlist.json"


def kept_nodes(predicted_BP: Ints, parents: Positives, most: int) -> Ints:
    """[B, C] the nodes that a training text goes on with, C = `most` of them, padded with -1.

    Its true ones, ascending, then those predicted, best first; of more than C true ones those predicted, then others by
    ascending number.

    Args:
        predicted_BP: best first, padded with -1.
        parents: true nodes of each text, ascending, each once.
    """
    n, width = predicted_BP.shape
    counts = np.diff(parents.indptr)
    true_row, true_node = np.repeat(np.arange(n), counts), parents.ids
    row, column = np.nonzero(predicted_BP >= 0)
    node = predicted_BP[row, column]
    place, hit = _find(row, node, true_row, true_node)
    found_at = np.full(len(true_row), width)
    found_at[place[hit]] = column[hit]
    crowded = counts > most
    more = ~hit & ~crowded[row]
    rows, nodes = np.concatenate([true_row, row[more]]), np.concatenate([true_node, node[more]])
    rank = np.concatenate([np.where(crowded[true_row], found_at, -1), column[more]])
    order = np.lexsort((nodes, rank, rows))
    return _table(rows[order], nodes[order], n, most)


def _find(row: Ints, node: Ints, true_row: Ints, true_node: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Where each (row, node) stands among the true ones, ascending by row and node, and whether it is there."""
    width = 1 + max(node.max(initial=0), true_node.max(initial=0))
    true_key, key = true_row * width + true_node, row * width + node
    place = np.searchsorted(true_key, key)
    hit = place < len(true_key)
    hit[hit] = true_key[place[hit]] == key[hit]
    return place, hit


def _table(rows: Ints, values: Ints, n: int, most: int) -> Ints:
    """[n, most] the first values of each row, -1 behind them; rows ascend."""
    nth = np.arange(len(rows)) - np.searchsorted(rows, rows)
    table = np.full((n, most), -1, np.int64)
    table[rows[nth < most], nth[nth < most]] = values[nth < most]
    return table


@dataclass(frozen=True)
class Below:
    """The nodes of a level as children of those of the level above, both numbered from 0: a range for each parent."""

    first: Ints
    """[n] of parents"""
    count: Ints
    """[n]"""

    @classmethod
    def of(cls, tree: LabelTree, depth: int) -> Below:
        """The children of the nodes of `depth`."""
        nodes = slice(*tree.levels[depth])
        first = tree.first_child[nodes].astype(np.int64) - tree.levels[depth + 1][0]
        return cls(first, tree.n_child[nodes].astype(np.int64))

    def candidates(self, parent_BC: Ints) -> Ints:
        """[B, S] children of these parents, parent by parent, -1 behind those of a parent, or where there is none."""
        most = int(self.count.max())
        child = np.arange(most)
        real = (parent_BC >= 0)[..., None] & (child < self.count[parent_BC][..., None])
        cand_BCM = np.where(real, self.first[parent_BC][..., None] + child, -1)
        return cand_BCM.reshape(len(parent_BC), parent_BC.shape[1] * most)

    def of_parent(self, value_BC: NDArray, fill: float = 0) -> NDArray:
        """[B, S] a value of each parent, once for every candidate."""
        return np.repeat(value_BC, int(self.count.max()), axis=1)


def marks(cand_BS: Ints, positives: Positives) -> NDArray[np.bool_]:
    """[B, S] the candidates that are true ones; -1 is none. Positives of a text ascend."""
    n, size = cand_BS.shape
    true_row = np.repeat(np.arange(n), np.diff(positives.indptr))
    _, hit = _find(np.repeat(np.arange(n), size), cand_BS.ravel(), true_row, positives.ids)
    return hit.reshape(n, size) & (cand_BS >= 0)


def parents_of(parent: Ints, positives: Positives) -> Positives:
    """The parents of the positives, ascending, each once; `parent` [n] is that of each node."""
    n = len(positives.indptr) - 1
    width = 1 + int(parent.max())
    keys = np.unique(np.repeat(np.arange(n), np.diff(positives.indptr)) * width + parent[positives.ids])
    return Positives(np.searchsorted(keys, np.arange(n + 1) * width), keys % width)


def renumbered(number: Ints, positives: Positives) -> Positives:
    """The positives under other numbers, ascending again."""
    row = np.repeat(np.arange(len(positives.indptr) - 1), np.diff(positives.indptr))
    ids = number[positives.ids]
    return Positives(positives.indptr, ids[np.lexsort((ids, row))])


def random_fill(cand_BS: Ints, n_nodes: int, seed: int, epoch: int, points: Ints) -> Ints:
    """Candidates [B, S] whose places of -1 hold nodes drawn by (seed, epoch, point, number of the place) alone.

    Drawn ones may be true, or there twice, as in the published code.
    """
    row, column = np.nonzero(cand_BS < 0)
    number = np.arange(len(row)) - np.searchsorted(row, row)
    with np.errstate(over="ignore"):
        start = mix64(np.array(seed + 2, np.uint64)) ^ np.uint64(epoch)
        of_point = mix64(mix64(start) ^ points[row].astype(np.uint64))
        drawn = mix64(of_point ^ number.astype(np.uint64)) % np.uint64(n_nodes)
    filled = cand_BS.copy()
    filled[row, column] = drawn.astype(np.int64)
    return filled


@dataclass(frozen=True)
class Shortlists:
    """For every training point the nodes that it goes on with, as predicted; in files that are mapped, not loaded."""

    ids: NDArray[np.int32]
    """[N, C], best first"""
    scores: NDArray[np.float32]
    """[N, C] probabilities"""

    @classmethod
    def open(cls, folder: Path) -> Shortlists:
        """What `make` left in a folder."""
        ids, scores = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (IDS, SCORES))
        return cls(ids, scores)

    @classmethod
    def make(
        cls, world: World, folder: Path, facts: Mapping[str, Any], shape: tuple[int, int], find: Callable[[Ints], Lists]
    ) -> Shortlists:
        """The lists [N, C] of all points, read where they were made from the same `facts`, else found and written.

        Args:
            find: lists of these points, called on every rank with the same.
        Raises:
            DataError: a point is left without a list.
        """
        wanted = json.dumps({**facts, "shape": shape}, sort_keys=True)
        if not world.on_main(lambda: _is_there(folder / FACTS, wanted)):
            _write(world, folder, shape, find)
            world.on_main(lambda: _note(folder / FACTS, wanted))
        return cls.open(folder)


def _is_there(path: Path, wanted: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == wanted


def _note(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _write(world: World, folder: Path, shape: tuple[int, int], find: Callable[[Ints], Lists]) -> None:
    files: list[np.memmap] = []

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FACTS).unlink(missing_ok=True)
        for name, kind in ((IDS, np.int32), (SCORES, np.float32)):
            files.append(np.lib.format.open_memmap(folder / name, "w+", kind, shape))

    world.on_main(begin)
    with bar("shortlists", shape[0], world.is_main) as advance:
        for first in range(0, shape[0], BLOCK):
            rows = np.arange(first, min(first + BLOCK, shape[0]))
            found = find(rows)
            if (found[0][:, 0] < 0).any():
                raise DataError(f"{folder}: point {rows[(found[0][:, 0] < 0).argmax()]} goes on with no node")
            for file, part in zip(files, found, strict=False):
                file[rows] = part
            advance(len(rows))
    for file in files:
        file.flush()
