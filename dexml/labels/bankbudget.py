"""Which labels of a bank a step encodes beside the positives of its batch: the heaviest, and some of all in turn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dexml.data.batching import Ints
from dexml.distributed import World

ROUND = 0x20BD  # keeps this order apart from others of the same seed


class Round:
    """All labels in a fixed random order, taken again and again; the same on every rank."""

    def __init__(self, n_labels: int, seed: int) -> None:
        self.order = np.random.default_rng([seed, ROUND]).permutation(n_labels)
        self.next = 0

    def take(self, n: int, taken: Ints) -> Ints:
        """The next n labels that are not among `taken`; fewer if there are no more."""
        reach = min(len(self.order), n + len(taken))
        window = self.order.take(np.arange(self.next, self.next + reach), mode="wrap")
        found = np.flatnonzero(~np.isin(window, taken))[:n]
        if len(found):
            self.next = int(self.next + found[-1] + 1) % len(self.order)
        return window[found]


def heaviest(mass_S: Tensor, n: int, first: int, world: World) -> Ints:
    """Ids, on every rank the same, of the n labels of all ranks with most mass, the smaller id first among equals,
    those without any left out.

    Args:
        mass_S: masses of this rank's labels, the ids of which count from `first`.
    """
    k = min(n, len(mass_S))
    least = torch.topk(mass_S, k).values.min() if k else 0.0
    places = (mass_S >= least).nonzero().flatten()
    places = places[mass_S[places].argsort(descending=True, stable=True)[:n]]
    pairs = mass_S.new_zeros((2, n), dtype=torch.float64)
    pairs[0, : len(places)], pairs[1, : len(places)] = mass_S[places].double(), (places + first).double()
    value, label = world.gather(pairs).transpose(0, 1).reshape(2, -1).cpu().numpy()
    best = np.lexsort((label, -value))[:n]
    return label[best[value[best] > 0]].astype(np.int64)
