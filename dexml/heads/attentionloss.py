"""Binary cross-entropy of outputs that look at all tokens, over all outputs in tiles: nothing texts x tokens x outputs
is ever whole, and what belongs to a tile is freed before the next.

Loss and gradient of a tile are taken together, so that nothing is computed twice.

N tokens of B texts, D width of a state, L outputs, S those of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from dexml.data.batching import Ints
from dexml.heads.attention import Layout, groups
from dexml.heads.attentionnet import AttentionNet
from dexml.heads.features import Positives

CELLS = 1 << 19  # of a tile, padded tokens x outputs


def tiles(n_outputs: int, layout: Layout, most: int) -> Iterator[slice]:
    """Outputs in tiles of at most `most`, fewer where texts have many tokens."""
    size = min(most, max(64, CELLS // (len(layout.lengths) * layout.longest)))
    for first in range(0, n_outputs, size):
        yield slice(first, min(first + size, n_outputs))


def full_bce(
    net: AttentionNet, states_ND: Tensor, lengths: Ints, positives: Positives, unknown: Positives, most: int
) -> Tensor:
    """Summed over all texts and outputs, those `unknown` left out; both are columns of outputs."""
    sums = Sums(net, states_ND)
    for texts, layout in groups(lengths):
        true, unseen = (Marks(cells, texts, states_ND.device) for cells in (positives, unknown))
        _group(net, sums, layout, true, unseen, most)
    return _Known.apply(sums.loss, len(sums.inputs), *sums.inputs, *sums.grads)


class Sums:
    """Loss and gradients, added up over tiles."""

    def __init__(self, net: AttentionNet, states_ND: Tensor) -> None:
        tables = {id(table) for table in net.tables}
        self.layers: list[Parameter] = [p for p in net.parameters() if id(p) not in tables]
        self.inputs = [states_ND, *net.tables, *self.layers]
        self.grads = [torch.zeros_like(x) for x in self.inputs]
        self.states, self.of_states = states_ND.detach(), self.grads[0]
        self.of_tables = self.grads[1 : 1 + len(net.tables)]
        self.of_layers = self.grads[1 + len(net.tables) :]
        self.loss = states_ND.new_zeros(())

    def add_layers(self, grads: Sequence[Tensor | None]) -> None:
        for total, grad in zip(self.of_layers, grads, strict=True):
            if grad is not None:
                total += grad


class Marks:
    """Some cells of a group of texts, by output."""

    def __init__(self, cells: Positives, texts: Ints, device: torch.device) -> None:
        counts = np.diff(cells.indptr)[texts]
        first = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) + np.repeat(cells.indptr[texts] - first, counts)
        row, column = np.repeat(np.arange(len(texts)), counts), cells.ids[place]
        order = np.argsort(column, kind="stable")
        self.column = column[order]
        self.cells = torch.from_numpy(np.stack([row, column])[:, order]).to(device)

    def logits(self, logit_BS: Tensor, outputs: slice) -> Tensor:
        """Those of the cells among these outputs."""
        a, b = np.searchsorted(self.column, [outputs.start, outputs.stop])
        row, column = self.cells[:, a:b]
        return logit_BS[row, column - outputs.start]


def _group(net: AttentionNet, sums: Sums, layout: Layout, true: Marks, unknown: Marks, most: int) -> None:
    mask_BT = layout.mask.to(sums.states.device)
    states_BTD = layout.take(sums.states).requires_grad_()
    with torch.enable_grad():
        values_BTF = net.values(states_BTD)
    seen_BTF = values_BTF.detach().requires_grad_()
    grad_states, grad_values = torch.zeros_like(states_BTD), torch.zeros_like(seen_BTF)
    for outputs in tiles(len(net.tables[0]), layout, most):
        rows = [table[outputs].detach().requires_grad_() for table in net.tables]
        with torch.enable_grad():
            logit_BS = net.logits(states_BTD, seen_BTF, mask_BT, *rows)
            loss = F.softplus(logit_BS).sum() - true.logits(logit_BS, outputs).sum()
            if len(unknown.column):
                loss = loss - F.softplus(unknown.logits(logit_BS, outputs)).sum()
        found = torch.autograd.grad(loss, [states_BTD, seen_BTF, *rows, *sums.layers], allow_unused=True)
        sums.loss += loss.detach()
        grad_states += found[0]
        grad_values += found[1]
        for total, grad in zip(sums.of_tables, found[2:], strict=False):
            total[outputs] += grad
        sums.add_layers(found[2 + len(rows) :])
    found = torch.autograd.grad(values_BTF, [states_BTD, *sums.layers], grad_values, allow_unused=True)
    layout.put(grad_states + found[0], sums.of_states)
    sums.add_layers(found[1:])


class _Known(torch.autograd.Function):
    """A value whose gradients are known: `apply(value, n, *inputs, *gradients)`, n of each."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, n: int, *both: Tensor) -> Tensor:
        ctx.save_for_backward(*both[n:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        known = ctx.saved_tensors
        return None, None, *[grad * x for x in known], *[None] * len(known)
