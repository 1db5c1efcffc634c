"""Loss values and gradients over all labels without an array of queries x labels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dexml.losses.fits import Fit, Loss, fit_bce, fit_decoupled, fit_softmax
from dexml.losses.tiles import Job, accumulate_, accumulator
from dexml.losses.topk import fit_topk
from dexml.losses.types import SINGLE, Comm, LossError, Positives, TiledResult, TopK

LOSSES: dict[str, Loss] = {
    "softmax": fit_softmax,
    "bce": fit_bce,
    "decoupled-softmax": fit_decoupled,
    "topk": fit_topk,
}


@torch.no_grad()
def tiled(
    loss: str | Loss,
    query_GD: Tensor,
    label_SD: Tensor,
    positives: Positives,
    tau: float,
    *,
    tile_rows: int = 0,
    tile_cols: int = 8192,
    comm: Comm = SINGLE,
    n_labels_total: int | None = None,
    weighted: bool = False,
    topk: TopK | None = None,
    log_weights: Tensor | None = None,
) -> TiledResult:
    """The loss of scores query_GD @ label_SD.T / tau over the labels of all shards, and the gradients of its mean.

    query_GD [G, D] is the same on every shard; label_SD [S, D] and `positives` are this shard's (S may be 0, and labels
    may be stored in bfloat16 beside wider queries). `total` is already summed over shards; grad_query [G, D] is this
    shard's part of a sum, grad_label [S, D] is complete. The peak holds inputs, gradients and two tiles of
    tile_rows x tile_cols scores (tile_rows 0: 4M cells a tile), a few more where oneDNN multiplies; the tile changes
    results by rounding only. log_weights [S]: ln of the weight of a label as a negative (softmax and decoupled
    softmax), for a sample of labels that stands for more. ValueError names the argument at fault.
    """
    job = Job(
        query_GD.detach(), label_SD.detach(), positives, tau, tile_rows, tile_cols, comm, n_labels_total, weighted,
        topk or TopK(), log_weights,
    )  # fmt: skip
    fit = _criterion(loss)(_checked(job, loss))
    grad_query, grad_label = _gradients(job, fit)
    return TiledResult(fit.finish(job), positives.n_rows, grad_query, grad_label, fit.stats)


@torch.no_grad()
def label_mass(
    loss: str | Loss, query_GD: Tensor, label_SD: Tensor, positives: Positives, tau: float, **settings: Any
) -> Tensor:
    """[S] how much the mean loss pulls at each label: the sum over queries of |d(mean loss) / d(score)|.

    Arguments of `tiled`, at half its cost: nothing is multiplied with the embeddings a second time.
    """
    job = Job(query_GD.detach(), label_SD.detach(), positives, tau, **settings)
    fit = _criterion(loss)(_checked(job, loss))
    mass = torch.zeros(len(job.label), dtype=accumulator(job.query.dtype), device=job.label.device)
    for tile in job.scan(fit.sharpness):
        fit.to_gradient_(tile)
        mass[tile.cols] += tile.scores.abs_().sum(0)
    return mass.div_(positives.n_rows)


def _gradients(job: Job, fit: Fit) -> tuple[Tensor, Tensor]:
    """Scores again, tile by tile, turned into gradients and multiplied out at once."""
    dtype = accumulator(job.query.dtype)
    grad_query, grad_label = torch.zeros_like(job.query, dtype=dtype), torch.zeros_like(job.label, dtype=dtype)
    scale = 1.0 / (job.tau * job.positives.n_rows)
    for tile in job.scan(fit.sharpness):
        fit.to_gradient_(tile)
        accumulate_(grad_query[tile.rows], tile.scores, job.label[tile.cols].to(job.query.dtype), scale, tile.regular)
        accumulate_(grad_label[tile.cols], tile.scores.T, job.query[tile.rows], scale, tile.regular)
    return grad_query, grad_label


def _criterion(loss: str | Loss) -> Loss:
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise LossError(f"loss: {loss!r} is not one of {', '.join(LOSSES)}")
    return LOSSES[loss]


def _checked(job: Job, loss: str | Loss) -> Job:
    query, label = job.query, job.label
    if query.dim() != 2 or label.dim() != 2 or query.shape[1] != label.shape[1]:
        raise LossError(f"query_GD, label_SD: need [G, D] and [S, D], got {list(query.shape)} and {list(label.shape)}")
    stored = label.dtype == torch.bfloat16  # of any queries: widened tile by tile
    if not (query.dtype == label.dtype or stored) or query.dtype not in (torch.float64, torch.float32, torch.bfloat16):
        raise LossError(
            f"query_GD, label_SD: need one type of float64, float32, bfloat16, or labels in bfloat16, "
            f"got {query.dtype} and {label.dtype}"
        )
    devices = [str(x.device) for x in (query, label, job.positives.cols)]
    if len(set(devices)) > 1:
        raise LossError(f"query_GD, label_SD, positives: need one device, got {', '.join(devices)}")
    if query.shape[0] != job.positives.n_rows:
        raise LossError(f"positives: {job.positives.n_rows} rows for {query.shape[0]} queries")
    if not (job.tau > 0 and math.isfinite(job.tau)):
        raise LossError(f"tau: must be a positive number, got {job.tau}")
    if job.tile_rows < 0 or job.tile_cols < 1:
        raise LossError(f"tile_rows, tile_cols: need >= 0 and >= 1, got {job.tile_rows} and {job.tile_cols}")
    if loss == "bce" and job.n_labels_total is None and job.comm is not SINGLE:
        raise LossError("n_labels_total: bce over label shards needs the number of labels of all shards")
    if job.log_weights is not None:
        _check_log_weights(job.log_weights, label.shape[0], loss)
    job.positives.validate(label.shape[0])
    if loss == "topk" and (job.n_labels_total is not None or job.comm is SINGLE):
        job.topk.check(label.shape[0] if job.n_labels_total is None else job.n_labels_total)
    return job


def _check_log_weights(log_weights: Tensor, n_labels: int, loss: str | Loss) -> None:
    if loss not in ("softmax", "decoupled-softmax"):
        raise LossError(f"log_weights: not defined for {loss}")
    if log_weights.shape != (n_labels,) or not bool(torch.isfinite(log_weights).all()):
        raise LossError(f"log_weights: need {n_labels} finite numbers, got shape {list(log_weights.shape)}")
