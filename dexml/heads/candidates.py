"""The candidates of a text, the labels of a few groups, and their logits. Shared by LightXML and Multi-Head Encoding.

Labels stand in K groups of C places each, place p = group * C + slot, some of them empty. Candidates are places, so a
table of label vectors has a row a place, a group in one piece, and a rank may hold those of a range of groups.

B texts, K groups, C places a group, M candidates of a text, n real candidates of all texts, P positives, D width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Overflow = Literal["append", "replace", "drop"]
LABELS = 1 << 30  # ids are below


@dataclass(frozen=True)
class Groups:
    """Where labels stand."""

    label_at: Tensor
    """int64 [K, C] label of a place, -1 for an empty one"""
    place_of: Tensor
    """int64 [L] place of a label, -1 for a label in no group: it is neither trained nor found"""

    @classmethod
    def of(cls, label_at: Tensor, n_labels: int) -> Groups:
        flat = label_at.reshape(-1).long()
        place_of = torch.full((n_labels,), -1, device=flat.device)
        place_of[flat[flat >= 0]] = torch.arange(len(flat), device=flat.device)[flat >= 0]
        return cls(flat.view(label_at.shape), place_of)

    @property
    def count(self) -> int:
        return len(self.label_at)

    @property
    def width(self) -> int:
        return self.label_at.shape[1]

    def places(self, group: Tensor) -> Tensor:
        """Places [B, b * C] of groups [B, b], group by group, -1 for empty ones."""
        place = (group.unsqueeze(-1) * self.width + torch.arange(self.width, device=group.device)).flatten(1)
        return place.where(self.label_at.view(-1)[place] >= 0, -1)

    def labels(self, place: Tensor) -> Tensor:
        """Labels of places, -1 for -1."""
        return self.label_at.view(-1)[place.clamp(min=0)].where(place >= 0, -1)

    def truth(self, indptr: Tensor, labels: Tensor) -> Truth:
        """The positives of B texts given as CSR, labels of a text ascending; those in no group are left out."""
        row = torch.arange(len(indptr) - 1, device=labels.device).repeat_interleave(indptr.diff())
        place = self.place_of[labels]
        return Truth(row[place >= 0], place[place >= 0], len(indptr) - 1)


@dataclass(frozen=True)
class Truth:
    """All positives of B texts."""

    row: Tensor
    """[P] ascending"""
    place: Tensor
    """[P]"""
    n_rows: int

    def groups(self, groups: Groups) -> Tensor:
        """bool [B, K]: the group holds a positive."""
        found = torch.zeros((self.n_rows, groups.count), dtype=torch.bool, device=self.row.device)
        found[self.row, self.place // groups.width] = True
        return found


@dataclass(frozen=True)
class Candidates:
    """What texts are compared with: no place twice in a row."""

    place: Tensor
    """int64 [B, M], -1 where there is none"""
    target: Tensor
    """bool [B, M] positives"""

    @property
    def real(self) -> Tensor:
        """bool [B, M]"""
        return self.place >= 0

    @property
    def targets(self) -> Tensor:
        """bool [n] of the real ones, text by text: as `dots` scores them."""
        return self.target[self.real]

    def plus(self, place_BX: Tensor) -> Candidates:
        """With these negatives [B, X] at the end."""
        place = torch.cat([self.place, place_BX], dim=1)
        return Candidates(place, F.pad(self.target, (0, place_BX.shape[1])))

    def within(self, first: int, stop: int) -> Candidates:
        """Those at places first..stop-1, counted from `first`: the part that a shard of the table scores."""
        here = (self.place >= first) & (self.place < stop)
        return Candidates((self.place - first).where(here, -1), self.target & here)


def top(score_BN: Tensor, k: int, id_BN: Tensor | None = None, first_BN: Tensor | None = None) -> Tensor:
    """Columns [B, min(k, N)] of the best scores in float32, best first, of equals the smaller id (column by default).

    Args:
        first_BN: bool, columns that stand before all others.
    """
    if id_BN is None:
        id_BN = torch.arange(score_BN.shape[1], device=score_BN.device)
    bits = (score_BN.detach().float() + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # floats are ordered as integers of sign and magnitude
    if first_BN is not None:
        key += first_BN.long() << 32
    return (key * LABELS - id_BN).topk(min(k, score_BN.shape[1]), dim=1).indices


def choose(logit_BK: Tensor, b: int, true_BK: Tensor | None = None) -> Tensor:
    """Groups [B, min(b, K)] to open: true ones first, then by logit, of equals the smaller id. No gradient."""
    return top(logit_BK, b, first_BN=true_BK)


def candidates(groups: Groups, chosen_Bb: Tensor, truth: Truth, overflow: Overflow = "append") -> Candidates:
    """The labels of the chosen groups, and what becomes of positives in other groups.

    Args:
        overflow: `append` them as columns of their own, let each `replace` the first candidate that is not positive,
            or `drop` them.
    """
    place = groups.places(chosen_Bb)
    at = chosen_Bb[truth.row] == (truth.place // groups.width)[:, None]  # [P, b]
    inside = at.any(1)
    column = at.int().argmax(1) * groups.width + truth.place % groups.width
    target = torch.zeros_like(place, dtype=torch.bool)
    target[truth.row[inside], column[inside]] = True
    found = Candidates(place, target)
    if overflow == "drop":
        return found
    return (_append if overflow == "append" else _replace)(found, truth.row[~inside], truth.place[~inside])


def _append(found: Candidates, row: Tensor, place: Tensor) -> Candidates:
    nth = _nth_of_row(row)
    more = found.place.new_full((len(found.place), int(nth.max()) + 1 if len(nth) else 0), -1)
    more[row, nth] = place
    return Candidates(torch.cat([found.place, more], 1), torch.cat([found.target, more >= 0], 1))


def _replace(found: Candidates, row: Tensor, place: Tensor) -> Candidates:
    free_row, free_column = (found.real & ~found.target).nonzero(as_tuple=True)
    spot = torch.searchsorted(free_row, row) + _nth_of_row(row)
    fits = spot < len(free_row)
    fits[fits.clone()] = free_row[spot[fits]] == row[fits]
    at = row[fits], free_column[spot[fits]]
    return Candidates(found.place.index_put(at, place[fits]), found.target.index_put(at, found.target.new_tensor(True)))


def _nth_of_row(row: Tensor) -> Tensor:
    """How many entries of ascending rows [P] stand before each in its own row."""
    return torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)


# --- scores


def dots(query_BD: Tensor, table_PD: Tensor, place_BM: Tensor) -> Tensor:
    """Inner products [n] of texts and the table rows of their real candidates, text by text. Gathers no rows."""
    real = place_BM >= 0
    begins = F.pad(real.sum(1).cumsum(0), (1, 0))
    return ragged_dots(query_BD, table_PD, begins, place_BM[real])


def ragged_dots(query_BD: Tensor, table_PD: Tensor, begins: Tensor, place: Tensor) -> Tensor:
    """The same [n] where those of text i are `place[begins[i]:begins[i + 1]]`."""
    return _Dots.apply(query_BD, table_PD, begins, place)


class _Dots(torch.autograd.Function):
    """Dense times dense at the cells of a sparse matrix; its gradient is sparse times dense.

    Ten times faster on a CPU than gathered rows, which are read, written and read again.
    """

    @staticmethod
    def forward(ctx: Any, query_BD: Tensor, table_PD: Tensor, begins: Tensor, column: Tensor) -> Tensor:
        ctx.save_for_backward(query_BD, table_PD, begins, column)
        cells = _csr(begins, column, query_BD.new_zeros(len(column)), len(table_PD))
        return torch.sparse.sampled_addmm(cells, query_BD.detach(), table_PD.detach().t(), beta=0.0).values()

    @staticmethod
    def backward(ctx: Any, grad_n: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        query_BD, table_PD, begins, column = ctx.saved_tensors
        grad_query = grad_table = None
        if ctx.needs_input_grad[0]:  # four times as fast as the sparse product
            grad_query = F.embedding_bag(column, table_PD, begins[:-1], mode="sum", per_sample_weights=grad_n)
        if ctx.needs_input_grad[1]:
            grad_table = _csr(begins, column, grad_n, len(table_PD)).t() @ query_BD
        return grad_query, grad_table, None, None


def _csr(begins: Tensor, column: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        size = (len(begins) - 1, width)
        return torch.sparse_csr_tensor(begins, column, values, size, check_invariants=False)


def bce_sum(logit: Tensor, target: Tensor) -> Tensor:
    """Summed binary cross-entropy of logits and targets of one shape; divide it by the count over all ranks."""
    return F.binary_cross_entropy_with_logits(logit, target.to(logit.dtype), reduction="sum")
