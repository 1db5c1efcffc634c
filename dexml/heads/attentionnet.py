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


def query_table(n_outputs: int, width: int, sparse: bool = False) -> Parameter:
    """Xavier-uniform queries [L, D]; `sparse` lets the gradient of a step name its rows."""
    bound = math.sqrt(6 / (n_outputs + width))
    table = torch.empty(n_outputs, width).uniform_(-bound, bound)
    return RowTable(table) if sparse else Parameter(table)


class SharedMLP(nn.Module):
    """Linear layers that all outputs share, with ReLU between: D -> sizes... -> 1 (AttentionXML, arXiv 1811.01727)."""

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        widths = [width, *sizes, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]

    def values(self, states_BTD: Tensor) -> Tensor:
        """[B, T, F] the first layer without its bias, which is added after the mean."""
        return states_BTD @ self.layers[0].weight.t()  # type: ignore[operator]

    def forward(self, pooled_BSF: Tensor) -> Tensor:
        """Logits [B, S]."""
        x = pooled_BSF + self.layers[0].bias  # type: ignore[operator]
        for layer in list(self.layers)[1:]:
            x = layer(x.relu())
        return x.squeeze(-1)


class SharedNet(nn.Module):
    """Label-wise attention and a shared MLP: `flat_shared`, and each level of AttentionXML."""

    def __init__(self, n_outputs: int, width: int, sizes: Sequence[int], sparse: bool = False) -> None:
        super().__init__()
        self.query = query_table(n_outputs, width, sparse)
        self.mlp = SharedMLP(width, sizes)

    def values(self, states_BTD: Tensor) -> Tensor:
        return self.mlp.values(states_BTD)

    def logits(self, states_BTD: Tensor, values_BTF: Tensor, mask_BT: Tensor, outputs: slice) -> Tensor:
        """[B, S] of these outputs."""
        return self.mlp(pooled(attention(states_BTD, self.query[outputs], mask_BT), values_BTF))

    def candidates(self, states_BTD: Tensor, mask_BT: Tensor, cand_BS: Tensor) -> Tensor:
        """Logits [B, S] of outputs that each text names."""
        query_BSD = F.embedding(cand_BS, self.query, sparse=isinstance(self.query, RowTable))
        return self.mlp(pooled(attention(states_BTD, query_BSD, mask_BT), self.values(states_BTD)))


class LabelwiseNet(nn.Module):
    """Label-wise attention and a weight vector and bias of every label: `lwan` (arXiv 1802.05695)."""

    def __init__(self, n_outputs: int, width: int) -> None:
        super().__init__()
        self.query = query_table(n_outputs, width)
        self.weight = query_table(n_outputs, width)
        self.bias = Parameter(torch.zeros(n_outputs))

    def values(self, states_BTD: Tensor) -> Tensor:
        return states_BTD

    def logits(self, states_BTD: Tensor, values_BTF: Tensor, mask_BT: Tensor, outputs: slice) -> Tensor:
        """[B, S] of these outputs."""
        seen_BTS = values_BTF @ self.weight[outputs].t()
        return (attention(states_BTD, self.query[outputs], mask_BT) * seen_BTS).sum(1) + self.bias[outputs]
