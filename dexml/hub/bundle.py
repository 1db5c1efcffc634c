"""A bundle: everything needed to predict, in one sentence-transformers directory.

```
config.json model.safetensors tokenizer*.json modules.json 1_Pooling/ ...   the encoder, see dexml.encoders.encoder
dexml.yaml                        the config it was trained with
calibration.json                  turns scores into probabilities; only where there were validation points
labels.txt                        one label text a line, in the order of the ids
label_embeddings.safetensors      `labels` float32 [L, D]
index/                            the LabelIndex over them; its `meta` holds the digests of the files above that decide
                                  a prediction
head.safetensors                  instead of the last two where labels are found by layers of their own, and a tree
                                  beside it where there is one; its metadata holds the digests
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from dexml.config import Config
from dexml.data.files import DataError, sha256
from dexml.data.hubfolder import Download
from dexml.data.textfile import Lines
from dexml.data.tokens import TextTokens
from dexml.encoders.encoder import Encoder
from dexml.evaluation.calibration import RIVALS, Calibration
from dexml.evaluation.export import found_labels
from dexml.evaluation.retrieval import Finder, Predictions
from dexml.index import LabelIndex

CALIBRATION, SETTINGS = "calibration.json", "dexml.yaml"
LABELS, EMBEDDINGS, HEAD = "labels.txt", "label_embeddings.safetensors", "head.safetensors"
COMMON = ("modules.json", LABELS)
DUAL = ("dist-de-all", "dist-de-hnm")
BIAS = "bias"
"""in an index's meta: the last column of its vectors is added to scores"""


def fill_bundle(
    folder: Path,
    encoder: Encoder,
    label_texts: Sequence[str],
    write_head: Callable[[Path, Mapping[str, str]], None],
    cfg: Config,
    calibration: Calibration | None = None,
) -> None:
    """Writes encoder, labels [L] and what `Head.bundle` gave into the new `folder`.

    Raises:
        DataError: labels and head do not belong together, or a label has two lines.
    """
    for i, text in enumerate(label_texts):
        if "\n" in text:
            raise DataError(f"{folder}: label {i} ({text[:40]!r}) holds a line break; labels.txt has one label a line")
    encoder.save(folder)
    with (folder / LABELS).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{text}\n" for text in label_texts)
    digests = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    cfg.dump(folder / SETTINGS)
    if calibration is not None:
        (folder / CALIBRATION).write_text(json.dumps(calibration.to_dict(), indent=1) + "\n", encoding="utf-8")
    write_head(folder, digests)


def vectors_writer(labels: NDArray[np.float32] | Path, bias: bool = False) -> Callable[[Path, Mapping[str, str]], None]:
    """Writes label embeddings and the flat index over them into a bundle.

    Args:
        labels: [L, D], or a safetensors file of them, which becomes that of the bundle.
        bias: the last column is added to scores, whatever the text.
    """

    def write(folder: Path, digests: Mapping[str, str]) -> None:
        if isinstance(labels, Path):
            labels.replace(folder / EMBEDDINGS)
        else:
            save_file({"labels": np.ascontiguousarray(labels)}, folder / EMBEDDINGS)
        label_LD, n = _mapped_embeddings(folder), len(read_labels(folder))
        if len(label_LD) != n:
            raise DataError(f"{folder}: there are {len(label_LD)} label embeddings for {n} labels")
        meta = {"sha256": dict(digests), **({BIAS: True} if bias else {})}
        LabelIndex.build(label_LD, meta=meta).save(folder / "index")

    return write


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: `Bundle.load("best").predict(["a text"], k=5)`."""

    encoder: Encoder
    labels: Sequence[str]
    index: LabelIndex | None
    """None: labels are found by a head with layers of its own."""
    calibration: Calibration | None = None
    """None: the scores say nothing about probabilities."""
    finder: Finder | None = None
    """Such a head at work."""
    labels_are_texts: bool = True
    """The vector of a label is that of its text, so any text can become one."""

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str | None = None,
        amp: bool = False,
        trust_remote_code: bool = False,
        **download: Unpack[Download],
    ) -> Bundle:
        """Reads a bundle from its folder, its run or a Hub id, with the label changes kept there.

        Args:
            download: revision, token, cache_dir, local_files_only, for a Hub id.
        Raises:
            DataError, LabelIndexError, ConfigError: a file is missing, changed or does not belong to the others.
            HubError: the Hub has no such bundle, or was not reached.
        """
        from dexml.hub.labelset import LabelSet

        return LabelSet.load(source, device=device, amp=amp, trust_remote_code=trust_remote_code, **download).bundle

    @classmethod
    def read(cls, folder: Path, device: str | None, amp: bool, trust_remote_code: bool) -> Bundle:
        """Reads the bundle in `folder` as it was exported; errors as of `load`."""
        check_parts(folder)
        labels = read_labels(folder)
        if (folder / HEAD).exists():
            from dexml.hub.headed import load_headed

            encoder, finder = load_headed(folder, labels, device, amp, trust_remote_code)
            return cls(encoder, labels, None, read_calibration(folder), finder, labels_are_texts=False)
        index = LabelIndex.load(folder / "index")
        check_digests(folder, index.meta.get("sha256", {}))
        encoder = Encoder.load(folder, device=device, amp=amp, trust_remote_code=trust_remote_code)
        if index.width - bool(index.meta.get(BIAS)) != encoder.width:
            raise DataError(f"{folder}: the index is {index.width} wide, the encoder {encoder.width}: export it again")
        if len(index) and index.ids[-1] >= len(labels):
            raise DataError(f"{folder}: the index holds label {index.ids[-1]}, labels.txt has {len(labels)} lines")
        return cls(encoder, labels, index, read_calibration(folder), labels_are_texts=_by_text(folder))

    def search(
        self, texts: Sequence[str], k: int = 5, batch_size: int = 256
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best k labels of each of N texts, encoded `batch_size` at a time: ids and scores [N, k], padded with -1
        and -inf.

        Scores are inner products, or what the head gives.
        """
        if self.index is not None:
            query_ND = self.encoder.encode(texts, batch_size)
            if self.index.meta.get(BIAS):
                query_ND = np.pad(query_ND, ((0, 0), (0, 1)), constant_values=1)
            return self.index.search(query_ND, min(k, len(self.index)))
        assert self.finder is not None
        tokens = TextTokens(texts, self.encoder.tokenizer, self.encoder.max_len)
        found = self.finder.search(tokens, np.arange(len(texts)), min(k, len(self.labels)))
        return found.ids, found.scores

    def predict(
        self, texts: Sequence[str], k: int = 5, threshold: float | None = None
    ) -> list[list[tuple[str, float]]]:
        """The best k labels of each text with their scores (inner products, not probabilities).

        With a threshold: those whose probability is above it, with their probabilities.
        Raises:
            DataError: a threshold, but the bundle has no calibration.
        """
        ids, values = self.search(texts, k if threshold is None else max(k, RIVALS))
        keep = ids >= 0
        if threshold is not None:
            values = self.probability(values)
            keep &= values > threshold
        keep[:, k:] = False
        return [
            [(self.labels[i], float(value)) for i, value in zip(row[kept], row_values[kept], strict=True)]
            for row, row_values, kept in zip(ids, values, keep, strict=True)
        ]

    def find(
        self, texts: Sequence[str], k: int = 5, threshold: float | None = None, batch_size: int = 256
    ) -> list[list[dict[str, Any]]]:
        """As `predict`: id, text, score and, where there is a calibration, probability of each label."""
        calibrated = None if self.calibration is None and threshold is None else self.probability
        lists = Predictions(*self.search(texts, max(k, RIVALS), batch_size))
        return list(found_labels(lists, self.labels, calibrated, threshold, most=k))

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.floating]:
        """Of the scores of whole lists [N, K], see `Calibration.probability`; DataError if there is no calibration."""
        if self.calibration is None:
            raise DataError(
                f"this bundle has no {CALIBRATION}, so its scores are not probabilities: "
                f"train with num_val_points, which fits one at the end"
            )
        return self.calibration.probability(scores)


def read_labels(folder: Path) -> Sequence[str]:
    """The label texts of a bundle."""
    return Lines(folder / LABELS)


def read_embeddings(folder: Path, rows: slice) -> NDArray[np.float32]:
    """These rows of the label embeddings of a bundle."""
    with safe_open(folder / EMBEDDINGS, "numpy") as file:
        return file.get_slice("labels")[rows]


def _mapped_embeddings(folder: Path) -> NDArray[np.float32]:
    """All of them, from the file as they are asked for."""
    path = folder / EMBEDDINGS
    with safe_open(path, "numpy") as file:
        shape = tuple(file.get_slice("labels").get_shape())
    return np.memmap(path, "<f4", "r", path.stat().st_size - 4 * int(np.prod(shape)), shape)


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration of a bundle, None if it has none; DataError if it cannot be read."""
    path = folder / CALIBRATION
    if not path.exists():
        return None
    try:
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: {error}: delete it to go without probabilities, or copy it again") from error


def _by_text(folder: Path) -> bool:
    """Whether a dual encoder made the label embeddings; so it is where nothing was trained."""
    path = folder / SETTINGS
    try:
        return not path.exists() or yaml.safe_load(path.read_text(encoding="utf-8"))["net"] in DUAL
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path} names no net: copy it again") from error


def check_parts(folder: Path) -> None:
    """DataError unless what every bundle has is there."""
    needed = [*COMMON, *([SETTINGS] if (folder / HEAD).exists() else [EMBEDDINGS, "index"])]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise DataError(f"{folder} is no bundle: {', '.join(missing)} missing; training writes one to <run>/best")


def check_digests(folder: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing: copy the whole folder again")
        if sha256(folder / name) != digest:
            raise DataError(
                f"{folder / name} has changed since the index was built over it: their scores would mean nothing; "
                f"copy the folder again, or export it again"
            )
