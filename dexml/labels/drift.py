"""Where the embeddings that were not made anew have gone, told from those that were.

An update of the encoder moves all label embeddings, most of it alike. Each step the fresh labels show old and new
vectors; a ridge regression (running sums, so that it learns from many steps) and a Gaussian kernel on what it leaves
say how all others move. Better than the linear map alone: docs/label-side.md. Corrector networks (Monath et al., ICML
2024) do the same with a trained net.

F fresh labels, R rows of the bank, M landmarks, D embedding width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dexml.products import product

DECAY = 0.95  # of the running sums, a step
RIDGE = 3.0
BANDWIDTH, KERNEL_RIDGE = 0.3, 0.3
LANDMARKS = 1024
HELD_OUT = 8  # every eighth fresh label only measures
BLOCK = 16384  # rows moved at a time


class Drift:
    """Learns a map of the embeddings from fresh labels and moves the others by it.

    Args:
        kernel: with the kernel on top of the linear map.
        normalize: moved rows get length 1 again.
    """

    def __init__(self, width: int, kernel: bool, normalize: bool, like: Tensor) -> None:
        self.kernel, self.normalize = kernel, normalize
        self.gram = like.new_zeros(width + 1, width + 1)
        self.cross = like.new_zeros(width + 1, width)
        self.before = self.after = 0.0
        """mean distance of held-out fresh labels from their old vectors, before and after these were moved"""

    def learn(self, old_FD: Tensor, new_FD: Tensor) -> None:
        """Takes labels whose vectors in the bank were `old` and are `new`."""
        held_out = torch.arange(len(old_FD), device=old_FD.device) % HELD_OUT == HELD_OUT - 1
        old, new = old_FD[~held_out], new_FD[~held_out]
        rows = _affine(old)
        self.gram.mul_(DECAY).addmm_(rows.T, rows)
        self.cross.mul_(DECAY).addmm_(rows.T, new - old)
        self.map = _ridge(self.gram, self.cross, RIDGE)
        self.cross.sub_(self.gram @ self.map)  # what the rows are moved by is no drift any more
        self.landmarks: Tensor | None = None
        if self.kernel:
            chosen = torch.linspace(0, len(old) - 1, min(LANDMARKS, len(old)), device=old.device).long()
            self.landmarks, left = old[chosen], new[chosen] - self.moved(old[chosen])
            self.pull = _ridge(_gauss(self.landmarks, self.landmarks), left, KERNEL_RIDGE)
        self.before = float((new_FD - old_FD)[held_out].norm(dim=1).mean().nan_to_num())
        self.after = float((new_FD - self.moved(old_FD))[held_out].norm(dim=1).mean().nan_to_num())

    def moved(self, rows_RD: Tensor) -> Tensor:
        """Rows of the bank, moved."""
        out = rows_RD + product(rows_RD, self.map[:-1], self.map[-1])
        if self.landmarks is not None:
            out = (F.normalize(out, dim=1) if self.normalize else out) + self._pulled(rows_RD)
        return F.normalize(out, dim=1) if self.normalize else out

    def move_(self, bank_SD: Tensor) -> None:
        """Moves all rows of a bank, which may be bfloat16."""
        for rows in bank_SD.split(BLOCK):
            rows.copy_(self.moved(rows.to(self.gram.dtype)))

    def _pulled(self, rows_RD: Tensor) -> Tensor:
        assert self.landmarks is not None
        return product(_gauss(rows_RD, self.landmarks), self.pull)

    def state(self) -> dict[str, Tensor]:
        return {"drift.gram": self.gram, "drift.cross": self.cross}


def _affine(rows_RD: Tensor) -> Tensor:
    return F.pad(rows_RD, (0, 1), value=1.0)


def _gauss(a_RD: Tensor, b_MD: Tensor) -> Tensor:
    """exp(-|a - b|^2 / (2 BANDWIDTH)) [R, M], which for vectors of length 1 depends on their cosine."""
    squares = a_RD.square().sum(1)[:, None] + b_MD.square().sum(1)
    return squares.sub_(product(a_RD, b_MD.T), alpha=2).mul_(-0.5 / BANDWIDTH).exp_()


def _ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """X of (gram + ridge) X = cross."""
    held = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(held)).contiguous()
