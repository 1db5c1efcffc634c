"""The losses a second time: one row, one label at a time, in Python floats. And random batches to compare on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dexml.losses import KEPT, MASKED, REMOVED, Positives, bce, decoupled_softmax, soft_topk, softmax

LOSSES = ["softmax", "bce", "decoupled-softmax", "topk", "topk-laplace"]


def lse(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def row_loss(name: str, s: list[float], entry: dict[int, tuple[int, float]], k: int, alpha: float) -> float:
    """entry: label -> (role, relevance)."""
    kept = [(p, r) for p, (role, r) in entry.items() if role == KEPT]
    plain = [v for label, v in enumerate(s) if label not in entry]
    open_cells = plain + [s[p] for p, _ in kept]
    if not kept:
        return 0.0
    if name == "softmax":
        log_z = lse([v for label, v in enumerate(s) if entry.get(label, (KEPT, 0))[0] != MASKED])
        return sum(r * (log_z - s[p]) for p, r in kept)
    if name == "bce":
        return (sum(map(softplus, open_cells)) - sum(s[p] for p, _ in kept)) / len(s)
    if name == "decoupled-softmax":
        return sum(r * softplus(lse(plain) - s[p]) for p, r in kept) / len(kept) if plain else 0.0
    if len(open_cells) <= k:
        return 0.0
    cdf = laplace if name == "topk-laplace" else logistic
    t = threshold(open_cells, k, alpha, cdf)
    return -sum(r * math.log(cdf(alpha * (s[p] + t))) for p, r in kept) / len(kept)


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def laplace(z: float) -> float:
    return math.exp(z) / 2 if z <= 0 else 1 - math.exp(-z) / 2


def threshold(s: list[float], k: int, alpha: float, cdf: Callable[[float], float]) -> float:
    lo, hi = -max(s) - 60 / alpha, -min(s) + 60 / alpha
    for _ in range(200):
        mid = (lo + hi) / 2
        lo, hi = (mid, hi) if sum(cdf(alpha * (v + mid)) for v in s) < k else (lo, mid)
    return (lo + hi) / 2


def total_loss(name: str, sim: Tensor, positives: Positives, weighted: bool, k: int = 2, alpha: float = 2.0) -> float:
    total = 0.0
    for i in range(sim.shape[0]):
        span = range(int(positives.indptr[i]), int(positives.indptr[i + 1]))
        entry = {
            int(positives.cols[j]): (int(positives.role[j]), float(positives.weights[j]) if weighted else 1.0)
            for j in span
        }
        total += row_loss(name, sim[i].tolist(), entry, k, alpha)
    return total


def dense_loss(name: str, sim: Tensor, positives: Positives, weighted: bool, k: int | Tensor = 2, alpha: float = 2.0):
    """The package's dense form by the names used in these tests."""
    if name == "bce":
        return bce(sim, positives)
    if name.startswith("topk"):
        cdf = "laplace" if name == "topk-laplace" else "logistic"
        return soft_topk(sim, positives, k=k, alpha=alpha, cdf=cdf, weighted=weighted)
    return {"softmax": softmax, "decoupled-softmax": decoupled_softmax}[name](sim, positives, weighted=weighted)


def random_positives(
    n_rows: int, n_cols: int, seed: int, *, share: float = 0.1, roles: tuple[int, ...] = (KEPT, REMOVED, MASKED)
) -> Positives:
    """Row 0 has no kept positive, row 1 has every label as one, row 2 the first and last label."""
    g = torch.Generator().manual_seed(seed)
    cell = torch.rand((n_rows, n_cols), generator=g) < share
    role = torch.tensor(roles)[torch.randint(len(roles), (n_rows, n_cols), generator=g)]
    role[0] = role[0].clamp(min=REMOVED)
    if n_rows > 1:
        cell[1], role[1] = True, KEPT
    if n_rows > 2:
        cell[2, [0, -1]], role[2] = True, KEPT
    if len(roles) == 1:
        cell[0] = False
    counts = torch.cat([torch.zeros(1, dtype=torch.long), cell.sum(1).cumsum(0)])
    weights = torch.rand((n_rows, n_cols), generator=g, dtype=torch.float64) * 2
    return Positives.from_csr(counts, cell.nonzero()[:, 1], weights[cell], role[cell])


def random_batch(n_rows: int, n_cols: int, width: int, seed: int, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(seed + 1)
    query = torch.randn((n_rows, width), generator=g, dtype=torch.float64)
    label = torch.randn((n_cols, width), generator=g, dtype=torch.float64)
    return query.to(dtype), label.to(dtype)
