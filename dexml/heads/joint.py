"""The dual encoder and the classifier in one: a label's vector is its embedded text plus a vector learnt for it.

S labels of this rank's span, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import Parameter

from dexml.config import Config
from dexml.data.dataset import Split
from dexml.distributed import World
from dexml.encoders.text import TextEncoder
from dexml.evaluation.retrieval import Embedder, Retriever
from dexml.heads.base import Groups, OpenTokens
from dexml.heads.dual import DualEncoder
from dexml.heads.rows import LabelRows


class Joint(DualEncoder):
    """Begins as the dual encoder. A step compares with all labels, so the spans of texts and rows are one."""

    def __init__(self, cfg: Config, encoder: TextEncoder, n_labels: int, tokens: OpenTokens, world: World) -> None:
        super().__init__(cfg, encoder, n_labels, tokens, world)
        self.rows = LabelRows(cfg, encoder, n_labels, world)

    @property
    def own(self) -> Mapping[str, Parameter]:
        return self.rows.own

    def learn_from(self, split: Split) -> None:
        self.rows.check()
        super().learn_from(split)

    def param_groups(self) -> Groups:
        return super().param_groups() + self.rows.groups()

    def _vectors(self, text_SD: Tensor) -> Tensor:
        return text_SD + self.rows.weight_SD.detach().to(text_SD.dtype)

    def _take_gradient(self, grad_SD: Tensor) -> None:
        self.rows.add_gradient(grad_SD)

    def retriever(self, embedder: Embedder) -> Retriever:
        rows_SD = self.rows.weight_SD.detach().float()
        if self.n_texts:
            rows_SD = super().retriever(embedder).item_SD + rows_SD.cpu()
        return Retriever(embedder, rows_SD, self.rows.n_labels)

    def load_bundle(self, folder: Path, label_texts: Iterable[str]) -> None:
        """Reads sums of texts and rows, after which no label text is embedded."""
        self.rows.read_bundle(folder, label_texts)
        self.n_texts = 0
