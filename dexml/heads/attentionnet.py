"""The networks on top of the token states: attention by a table of label queries, then what makes logits.

N tokens of B texts, T of the longest, D width of a state, L outputs, S of them looked at, F width of a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from dexml.distributed import RowTable
from dexml.heads.attention import attention, pooled


def output_table(n_outputs: int, width: int, sparse: bool = False) -> Parameter:
    """A row of numbers for every output [L, D], Xavier-uniform; `sparse` lets a gradient name the rows it touches."""
    bound = math.sqrt(6 / (n_outputs + width))
    table = torch.empty(n_outputs, width).uniform_(-bound, bound)
    return RowTable(table) if sparse else Parameter(table)


class AttentionNet(nn.Module):
    """Logits of outputs that look at all tokens. `values` of the tokens are made once, for any number of outputs."""

    query: Parameter
    tables: list[Parameter]
    """of which an output has a row each, that of the queries first"""

    def start_rare(self, log_odds: float) -> None:
        """Sets what all logits start at."""
        raise NotImplementedError

    def values(self, states_BTD: Tensor) -> Tensor:
        """[B, T, F] what outputs take the mean of."""
        raise NotImplementedError

    def read(self, weights_BTS: Tensor, values_BTF: Tensor, *rows: Tensor) -> Tensor:
        """Logits [B, S] of outputs that see tokens with these weights; `rows` are theirs of the other tables."""
        raise NotImplementedError

    def logits(self, states_BTD: Tensor, values_BTF: Tensor, mask_BT: Tensor, *rows: Tensor) -> Tensor:
        """Logits [B, S] of outputs with these rows of each table, [S, ...], or [B, S, ...] of each text its own."""
        return self.read(attention(states_BTD, rows[0], mask_BT), values_BTF, *rows[1:])


class SharedNet(AttentionNet):
    """An MLP that all outputs share, with ReLU between its layers: D -> sizes... -> 1 (AttentionXML, arXiv 1811.01727).

    Its first layer is taken of the tokens.
    """

    def __init__(self, n_outputs: int, width: int, sizes: Sequence[int], sparse: bool = False) -> None:
        super().__init__()
        self.query = output_table(n_outputs, width, sparse)
        self.tables = [self.query]
        layers = [nn.Linear(a, b) for a, b in pairwise([width, *sizes, 1])]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        self.first, self.mlp = layers[0], nn.ModuleList(layers[1:])

    def start_rare(self, log_odds: float) -> None:
        nn.init.constant_([self.first, *self.mlp][-1].bias, log_odds)

    def values(self, states_BTD: Tensor) -> Tensor:
        return states_BTD @ self.first.weight.t()

    def read(self, weights_BTS: Tensor, values_BTF: Tensor, *rows: Tensor) -> Tensor:
        x_BSF = pooled(weights_BTS, values_BTF) + self.first.bias
        for layer in self.mlp:
            x_BSF = layer(x_BSF.relu_())  # in place: what made it does not need it to go back
        return x_BSF.squeeze(-1)

    def rows(self, output_BS: Tensor) -> Tensor:
        """[B, S, D] the queries of these outputs."""
        return F.embedding(output_BS, self.query, sparse=isinstance(self.query, RowTable))

    def candidates(self, states_BTD: Tensor, mask_BT: Tensor, cand_BS: Tensor) -> Tensor:
        """Logits [B, S] of outputs that each text names."""
        return self.logits(states_BTD, self.values(states_BTD), mask_BT, self.rows(cand_BS))


class LabelwiseNet(AttentionNet):
    """A weight vector and a bias of every output: `lwan` (arXiv 1802.05695)."""

    def __init__(self, n_outputs: int, width: int) -> None:
        super().__init__()
        self.query, self.weight = output_table(n_outputs, width), output_table(n_outputs, width)
        self.bias = Parameter(torch.zeros(n_outputs))
        self.tables = [self.query, self.weight, self.bias]

    def start_rare(self, log_odds: float) -> None:
        nn.init.constant_(self.bias, log_odds)

    def values(self, states_BTD: Tensor) -> Tensor:
        return states_BTD

    def read(self, weights_BTS: Tensor, values_BTF: Tensor, *rows: Tensor) -> Tensor:
        weight_SD, bias_S = rows
        return (weights_BTS * (values_BTF @ weight_SD.mT)).sum(1) + bias_S
