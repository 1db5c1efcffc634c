"""The best codes by the sum of one score of every head, exactly and without an array of all codes.

A code is a mixed-radix number with a digit for every head (`LabelCodes`); codes from L on are pads. Of equal sums the
smaller code comes first. Sums are taken from the first head to the last, in the type of the scores.

N texts, L codes, K places.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Parts = Sequence[Tensor]
"""Scores [N, length] of every head, first to last."""
CELLS = 1 << 22  # sums of products at a time


def ranked(scores_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best scores and their columns, [N, min(k, M)], best first, of equal ones the smaller column."""
    k = min(k, scores_NM.shape[1])
    values, columns = scores_NM.topk(k)
    if (scores_NM >= values[:, -1:]).sum() == values.numel():  # no equal of the last is left out
        columns = columns.sort(dim=1).values
        values, order = scores_NM.gather(1, columns).sort(dim=1, descending=True, stable=True)
        return values, columns.gather(1, order)
    values, columns = scores_NM.sort(dim=1, descending=True, stable=True)
    return values[:, :k], columns[:, :k]


def product_topk(parts: Parts, n_codes: int, k: int) -> tuple[Tensor, Tensor]:
    """The k best codes below `n_codes` and their sums: [N, min(k, n_codes)], best first.

    Heads are folded from the first to the last. A prefix beyond the best k + 1 of its level cannot lead to one of the
    best k: of the better ones, with the same digits behind them, only the very last prefix can be a pad.
    """
    k = min(k, n_codes)
    if len(parts) == 1:
        scores, codes = ranked(parts[0][:, :n_codes], k)
        return codes, scores
    last_NM = parts[-1]
    length = last_NM.shape[1]
    n_prefixes = -(-n_codes // length)
    pads = n_prefixes * length - n_codes
    prefix_NP, above_NP = product_topk(parts[:-1], n_prefixes, k + 1)
    value_NQ, digit_NQ = ranked(last_NM, k + pads)
    i, j = (torch.from_numpy(x).to(last_NM.device) for x in _pairs(prefix_NP.shape[1], value_NQ.shape[1], k, pads))
    code = prefix_NP[:, i] * length + digit_NQ[:, j]
    total = (above_NP[:, i] + value_NQ[:, j]).masked_fill(code >= n_codes, -torch.inf)
    code, order = code.sort(dim=1)
    scores, places = ranked(total.gather(1, order), k)
    return code.gather(1, places), scores


@lru_cache(maxsize=64)
def _pairs(rows: int, columns: int, k: int, pads: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks (i, j) from 0 that can be among the k best sums: (i + 1) * (j + 1) pairs are as good, `pads` of one row no
    codes."""
    i, j = np.divmod(np.arange(rows * columns), columns)
    keep = (i + 1) * (j + 1) - np.minimum(j + 1, pads) <= k
    return i[keep], j[keep]


def rank_topk(first_NRG: Tensor, second_NRC: Tensor, n_codes: int, k: int) -> tuple[Tensor, Tensor]:
    """The k best codes of two digits by a sum of R products of a factor of each: [N, min(k, n_codes)], best first.

    Factors may be negative, so the best codes need not be made of the best digits: all are scored, in blocks of first
    digits, and the best of each block are kept.

    Args:
        first_NRG: factors of the first digits.
        second_NRC: of the second digits.
        n_codes: those from here on are pads.
    Returns:
        Codes and their sums.
    """
    length = second_NRC.shape[2]
    codes = torch.empty((len(second_NRC), 0), dtype=torch.int64, device=second_NRC.device)
    scores = second_NRC.new_empty(codes.shape)
    step = max(1, CELLS // max(1, len(second_NRC) * length))
    for begin in range(0, n_codes, step * length):
        here = torch.arange(begin, min(n_codes, begin + step * length), device=codes.device)
        block_NGR = first_NRG[:, :, begin // length :][:, :, :step].mT
        sums = (block_NGR @ second_NRC).flatten(1)[:, : len(here)]
        scores, at = ranked(torch.cat([scores, sums], 1), k)  # of equals the earlier column: the smaller code
        codes = torch.cat([codes, here.expand(len(codes), -1)], 1).gather(1, at)
    return codes, scores


def best_first(parts: Sequence[NDArray[np.floating]], n_codes: int) -> Iterator[tuple[int, float]]:
    """Codes below `n_codes` of one text and their sums, best first, for as long as they are asked for.

    Args:
        parts: scores [length] of every head.
    """
    for total, equal in groupby(_descending(parts), key=lambda found: found[0]):
        yield from ((code, total) for code in sorted(code for _, code in equal) if code < n_codes)


def _descending(parts: Sequence[NDArray[np.floating]]) -> Iterator[tuple[float, int]]:
    """(sum, code) of every code, by falling sum; a vector of ranks has one parent, in which its last rank is lower."""
    orders = [np.argsort(-part, kind="stable") for part in parts]
    strides = [prod(len(part) for part in parts[h + 1 :]) for h in range(len(parts))]

    def entry(ranks: tuple[int, ...], last: int) -> tuple[float, int, tuple[int, ...], int]:
        digits = [int(order[rank]) for order, rank in zip(orders, ranks, strict=True)]
        total = sum(part[digit] for part, digit in zip(parts, digits, strict=True))
        return -total, sum(digit * stride for digit, stride in zip(digits, strides, strict=True)), ranks, last

    heap = [entry((0,) * len(parts), 0)]
    while heap:
        loss, code, ranks, last = heapq.heappop(heap)
        yield -loss, code
        for h in range(last, len(parts)):
            if ranks[h] + 1 < len(parts[h]):
                heapq.heappush(heap, entry((*ranks[:h], ranks[h] + 1, *ranks[h + 1 :]), h))
