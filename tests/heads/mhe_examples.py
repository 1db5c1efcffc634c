"""Multi-head heads on given text vectors, without an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from dexml.config import Config
from dexml.data.batching import Batch
from dexml.data.dataset import Split
from dexml.distributed import World
from dexml.heads.features import Positives, PreparedFeatures
from dexml.heads.label_codes import LabelCodes
from dexml.heads.make import multi_head
from dexml.heads.mhe import MultiHead

ONE = World()


class NoEncoder(nn.Module):
    """Stands where an encoder does; text vectors are given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.one = width, nn.Parameter(torch.zeros(1, dtype=torch.float64))


def make(
    kind: str,
    n_labels: int,
    lengths: Sequence[int],
    width: int,
    loss: str = "bce",
    world: World = ONE,
    **keys: Any,
) -> Any:
    """A head of this kind in float64, codes being label ids."""
    cfg = Config(dataset="Toy", net="mhe", mhe_kind=kind, **{"doc_dropout": 0.0, **keys})
    head = multi_head(cfg)(cfg, NoEncoder(width), n_labels, lambda part: None, world)  # type: ignore[arg-type,return-value]
    head.codes = LabelCodes(tuple(lengths), np.arange(n_labels))
    head._seeded(lambda: head._build(loss))
    return head


def ready(head: MultiHead, labels: Sequence[Sequence[int]], epoch: int = 0) -> PreparedFeatures:
    """Texts with these labels, as the head's training points; this rank's part of a batch of all of them."""
    rows = [row for row, some in enumerate(labels) for _ in some]
    flat = [label for some in labels for label in sorted(some)]
    relevance = csr_matrix((np.ones(len(flat), np.float32), (rows, flat)), (len(labels), head.n_labels))
    head.split = Split("trn", [], relevance, None)  # type: ignore[arg-type]
    batch = Batch(np.arange(len(labels)), epoch, step=0)
    own = batch.points[head.world.span(len(labels))]
    keys = np.zeros(len(own), np.int32)
    return PreparedFeatures(batch, None, own, Positives.of(head.split, own), keys)  # type: ignore[arg-type]


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@torch.no_grad()
def fill(p: Tensor, values: Any) -> None:
    p.copy_(torch.as_tensor(values, dtype=p.dtype).view(p.shape))
