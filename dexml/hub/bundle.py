"""A bundle: everything needed to predict, in one sentence-transformers directory.

```
config.json model.safetensors tokenizer*.json modules.json 1_Pooling/ ...   the encoder, see dexml.encoders.encoder
dexml.yaml                        the config it was trained with
labels.txt                        one label text a line, in the order of the ids
label_embeddings.safetensors      `labels` float32 [L, D]
index/                            the LabelIndex over them; its `meta` holds the digests of the files above that decide
                                  a prediction
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dexml.config import Config
from dexml.data.files import DataError, sha256
from dexml.data.textfile import Lines
from dexml.encoders.encoder import Encoder
from dexml.index import LabelIndex

PARTS = ("modules.json", "labels.txt", "label_embeddings.safetensors", "index")


def fill_bundle(
    folder: Path, encoder: Encoder, label_texts: Sequence[str], embeddings: NDArray[np.float32], cfg: Config
) -> None:
    """Writes encoder, labels [L], their embeddings [L, D] and the flat index over them into the new `folder`.

    Raises:
        DataError: as many labels as embeddings are needed, of the encoder's width, and no label of two lines.
    """
    wanted = (len(label_texts), encoder.width)
    if embeddings.shape != wanted:
        raise DataError(f"{folder}: the label embeddings have shape {embeddings.shape}, not {wanted}")
    for i, text in enumerate(label_texts):
        if "\n" in text:
            raise DataError(f"{folder}: label {i} ({text[:40]!r}) holds a line break; labels.txt has one label a line")
    encoder.save(folder)
    with (folder / "labels.txt").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{text}\n" for text in label_texts)
    digests = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    cfg.dump(folder / "dexml.yaml")
    save_file({"labels": np.ascontiguousarray(embeddings)}, folder / "label_embeddings.safetensors")
    LabelIndex.build(embeddings, meta={"sha256": digests}).save(folder / "index")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: `Bundle.load("best").predict(["a text"], k=5)`."""

    encoder: Encoder
    labels: Sequence[str]
    index: LabelIndex

    @classmethod
    def load(
        cls, folder: str | Path, device: str | None = None, amp: bool = False, trust_remote_code: bool = False
    ) -> Bundle:
        """Reads a bundle.

        Raises:
            DataError, LabelIndexError, ConfigError: a file is missing, changed or does not belong to the others.
        """
        folder = Path(folder)
        missing = [name for name in PARTS if not (folder / name).exists()]
        if missing:
            raise DataError(f"{folder} is no bundle: {', '.join(missing)} missing; training writes one to <run>/best")
        index, labels = LabelIndex.load(folder / "index"), Lines(folder / "labels.txt")
        _check_digests(folder, index.meta.get("sha256", {}))
        encoder = Encoder.load(folder, device=device, amp=amp, trust_remote_code=trust_remote_code)
        if index.width != encoder.width:
            raise DataError(f"{folder}: the index is {index.width} wide, the encoder {encoder.width}: export it again")
        if len(index) and index.ids[-1] >= len(labels):
            raise DataError(f"{folder}: the index holds label {index.ids[-1]}, labels.txt has {len(labels)} lines")
        return cls(encoder, labels, index)

    def predict(self, texts: Sequence[str], k: int = 5) -> list[list[tuple[str, float]]]:
        """The best k labels of each text with their scores (inner products, not probabilities)."""
        ids, scores = self.index.search(self.encoder.encode(texts), min(k, len(self.index)))
        return [
            [(self.labels[i], float(score)) for i, score in zip(row, row_scores, strict=True) if i >= 0]
            for row, row_scores in zip(ids.tolist(), scores.tolist(), strict=True)
        ]


def _check_digests(folder: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing: copy the whole folder again")
        if sha256(folder / name) != digest:
            raise DataError(
                f"{folder / name} has changed since the index was built over it: their scores would mean nothing; "
                f"copy the folder again, or export it again"
            )
