"""A bundle: everything needed to predict, in one sentence-transformers directory.

```
config.json model.safetensors tokenizer*.json modules.json 1_Pooling/ ...   the encoder, see dexml.encoders.encoder
dexml.yaml                        the config it was trained with
labels.txt                        one label text a line, in the order of the ids
label_embeddings.safetensors      `labels` float32 [L, D]
index/                            the LabelIndex over them
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dexml.config import Config
from dexml.data.files import DataError
from dexml.data.textfile import Lines
from dexml.encoders.encoder import Encoder
from dexml.index import LabelIndex


def fill_bundle(
    folder: Path, encoder: Encoder, label_texts: Sequence[str], embeddings: NDArray[np.float32], cfg: Config
) -> None:
    """Writes encoder, labels [L], their embeddings [L, D] and the flat index over them into `folder`."""
    encoder.save(folder)
    cfg.dump(folder / "dexml.yaml")
    (folder / "labels.txt").write_text("".join(f"{text}\n" for text in label_texts), encoding="utf-8")
    save_file({"labels": np.ascontiguousarray(embeddings)}, folder / "label_embeddings.safetensors")
    weights = (folder / "model.safetensors").read_bytes()
    LabelIndex.build(embeddings, meta={"model_sha256": hashlib.sha256(weights).hexdigest()}).save(folder / "index")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: `Bundle.load("best").predict(["a text"], k=5)`."""

    encoder: Encoder
    labels: Sequence[str]
    index: LabelIndex

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", amp: bool = False) -> Bundle:
        folder = Path(folder)
        missing = [name for name in ("modules.json", "labels.txt", "index") if not (folder / name).exists()]
        if missing:
            raise DataError(f"{folder} is no bundle: {', '.join(missing)} missing; training writes one to <run>/best")
        bundle = cls(Encoder.load(folder, device=device, amp=amp), Lines(folder / "labels.txt"), LabelIndex.load(folder / "index"))
        if len(bundle.index) > len(bundle.labels):
            raise DataError(f"{folder}: the index holds {len(bundle.index)} labels, labels.txt {len(bundle.labels)} lines")
        return bundle

    def predict(self, texts: Sequence[str], k: int = 5) -> list[list[tuple[str, float]]]:
        """The best k labels of each text with their scores (inner products, not probabilities)."""
        ids, scores = self.index.search(self.encoder.encode(texts), min(k, len(self.index)))
        return [
            [(self.labels[i], float(score)) for i, score in zip(row, row_scores, strict=True) if i >= 0]
            for row, row_scores in zip(ids.tolist(), scores.tolist(), strict=True)
        ]
