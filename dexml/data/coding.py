"""Token ids in little more than a byte each, in a form that numpy decodes at once.

n tokens, V different ids of a file.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
WIDTHS = (1, 2, 4)  # bytes of an extra


class IdCode:
    """Every token is a lead byte; a token that is not frequent has an extra number of `width` bytes too.

    `table` [V] ranks the ids by falling frequency. The first `direct` of them have a lead each; every other lead stands
    for a page of 256 ** width ids, and the extra for the place in the page.
    """

    def __init__(self, table: NDArray[np.integer], width: int) -> None:
        page = 256**width
        pages = max(0, -(-(len(table) - 256) // (page - 1)))  # as few as hold all ids that have no lead
        self.table, self.width = table.astype(np.int64), width
        self.direct = 256 - pages
        self.extra_type = np.dtype(f"<u{width}")
        self._page_rank = np.arange(256) * page - self.direct * (page - 1)  # rank of the first id of a lead's page
        frequent = self.table[: self.direct]
        self._direct_id = np.pad(frequent, (0, 256 - len(frequent)))

    @classmethod
    def fit(cls, counts: NDArray[np.integer]) -> IdCode:
        """The smallest code for ids that occur counts[id] times."""
        table = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        codes = [cls(table, width) for width in WIDTHS if len(table) <= 256 * 256**width]
        return min(codes, key=lambda code: code.width * code.extras(counts))

    def extras(self, counts: NDArray[np.integer]) -> int:
        """How many extras such ids need."""
        return int(counts[self.table[self.direct :]].sum())

    def encode(self, ids: NDArray[np.integer]) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger]]:
        """Leads [n] and the extras of those tokens that have one."""
        rank = self._rank_of[ids]
        deep = rank >= self.direct
        page, place = np.divmod(rank[deep] - self.direct, 256**self.width)
        rank[deep] = page + self.direct
        return rank.astype(np.uint8), place.astype(self.extra_type)

    def decode(self, leads: NDArray[np.uint8], extras: NDArray[np.unsignedinteger]) -> Ids:
        """The ids [n] that `encode` was given."""
        ids: Ids = self._direct_id.take(leads)
        deep = np.flatnonzero(leads >= self.direct)
        ids[deep] = self.table[self._page_rank.take(leads[deep]) + extras]
        return ids

    def has_extra(self, leads: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return leads >= self.direct

    @cached_property
    def _rank_of(self) -> Ids:
        ranks = np.zeros(int(self.table.max(initial=-1)) + 1, np.int64)
        ranks[self.table] = np.arange(len(self.table))
        return ranks
