"""Inner products of some pairs out of texts x nodes, which are a few in a hundred or in a million of all.

The pairs are the cells of a CSR matrix, so that value and gradients are three sparse products: no text vector and no
table row is copied for a pair.

B texts, V rows of the table, P pairs, D width.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

# the products used here are checked against dense ones
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


def pair_scores(z_BD: Tensor, weight_VD: Tensor, indptr: Tensor, nodes: Tensor) -> Tensor:
    """[P] z[text] . weight[node] of the pairs; those of text i are `nodes[indptr[i]:indptr[i + 1]]`."""
    return _PairScores.apply(z_BD, weight_VD, indptr, nodes)


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_BD: Tensor, weight_VD: Tensor, indptr: Tensor, nodes: Tensor) -> Tensor:
        ctx.save_for_backward(z_BD, weight_VD, indptr, nodes)
        cells = _csr(indptr, nodes, z_BD.new_zeros(len(nodes)), len(weight_VD))
        return torch.sparse.sampled_addmm(cells, z_BD.contiguous(), weight_VD.T, beta=0.0).values()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z_BD, weight_VD, indptr, nodes = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_z = _csr(indptr, nodes, grad, len(weight_VD)) @ weight_VD if ctx.needs_input_grad[0] else None
        grad_weight = _transposed(indptr, nodes, grad, len(weight_VD)) @ z_BD if ctx.needs_input_grad[1] else None
        return grad_z, grad_weight, None, None


def _csr(indptr: Tensor, columns: Tensor, values: Tensor, n_columns: int) -> Tensor:
    return torch.sparse_csr_tensor(indptr, columns, values, (len(indptr) - 1, n_columns), check_invariants=False)


def _transposed(indptr: Tensor, nodes: Tensor, values: Tensor, n_nodes: int) -> Tensor:
    text = torch.repeat_interleave(indptr.diff())
    order = torch.argsort(nodes, stable=True)
    ends = torch.bincount(nodes, minlength=n_nodes).cumsum(0)
    by_node = torch.cat([ends.new_zeros(1), ends])
    return _csr(by_node, text[order], values[order], len(indptr) - 1)
