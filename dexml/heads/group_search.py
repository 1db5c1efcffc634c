"""The best labels of texts in a cascade: groups of labels first, then the labels of the groups that are opened.

B texts, K groups of C places, P rows of a table, M candidates of a text, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.heads.candidates import Groups, choose, dots, top

CELLS = 1 << 22  # candidates scored at a time
Search = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class GroupSearch:
    """The best labels of texts by sigmoid(group logit) * sigmoid(inner product), in float32.

    With a table of some groups only, the best labels among those.
    """

    groups: Groups
    table_PD: Tensor
    """rows of the places of some consecutive groups; the last places may be missing if they are empty"""
    first: int = 0
    """the first of these groups"""

    def best(self, logit_BK: Tensor, query_BD: Tensor, b: int, k: int) -> tuple[Tensor, Tensor]:
        """Labels and scores [B, k] among the b groups of the largest logits, then -1 and -inf."""

        def search(logit_BK: Tensor, query_BD: Tensor) -> tuple[Tensor, Tensor]:
            return self._among(choose(logit_BK, b), logit_BK, query_BD, k)

        return self._by_rows(search, logit_BK, query_BD, b)

    def exact(self, logit_BK: Tensor, query_BD: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The same among all groups: they are opened best first until no other could hold one of the best k."""

        def search(logit_BK: Tensor, query_BD: Tensor) -> tuple[Tensor, Tensor]:
            return self._best_first(logit_BK, query_BD, k)

        return self._by_rows(search, logit_BK, query_BD, self._own.stop - self._own.start)

    @property
    def _own(self) -> slice:
        """The groups of the table."""
        return slice(self.first, self.first + ceil(len(self.table_PD) / self.groups.width))

    def _by_rows(self, search: Search, logit_BK: Tensor, query_BD: Tensor, b: int) -> tuple[Tensor, Tensor]:
        step = max(1, CELLS // max(1, b * self.groups.width))
        parts = [search(*some) for some in zip(logit_BK.split(step), query_BD.split(step), strict=True)]
        return torch.cat([ids for ids, _ in parts]), torch.cat([scores for _, scores in parts])

    def _best_first(self, logit_BK: Tensor, query_BD: Tensor, k: int) -> tuple[Tensor, Tensor]:
        order = self.first + choose(logit_BK[:, self._own], self._own.stop - self._own.start)
        ids = torch.full((len(query_BD), k), -1, device=query_BD.device)
        scores = torch.full(ids.shape, -torch.inf, device=query_BD.device)
        rows, begin, end = torch.arange(len(ids), device=ids.device), 0, 1
        while len(rows) and begin < order.shape[1]:
            found = self._among(order[rows, begin:end], logit_BK[rows], query_BD[rows], k)
            both = torch.cat([ids[rows], found[0]], 1), torch.cat([scores[rows], found[1]], 1)
            ids[rows], scores[rows] = best_of(*both, k)
            begin, end = end, 2 * end
            if begin < order.shape[1]:
                bound = logit_BK[rows, order[rows, begin]].float().sigmoid()
                rows = rows[bound >= scores[rows, -1]]
        return ids, scores

    def _among(self, opened: Tensor, logit_BK: Tensor, query_BD: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best k labels of opened groups [B, b]."""
        place = self.groups.places(opened)
        begin = self.first * self.groups.width
        place = (place - begin).where((place >= begin) & (place < begin + len(self.table_PD)), -1)
        score = logit_BK.gather(1, opened).float().sigmoid().repeat_interleave(self.groups.width, dim=1)
        score[place >= 0] *= dots(query_BD, self.table_PD, place).float().sigmoid()
        score[place < 0] = -torch.inf
        label = self.groups.labels((place + begin).where(place >= 0, -1))
        return best_of(label, score, k)


def best_of(label: Tensor, score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best k of labels [B, M], filled up with -1 and -inf."""
    at = top(score, k, label)
    missing = (0, k - at.shape[1])
    return F.pad(label.gather(1, at), missing, value=-1), F.pad(score.gather(1, at), missing, value=-torch.inf)
