"""Kinds that keep a row for every label and look at all of them: the vectors themselves, or codes of them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from dexml.index.search import LARGEST, Find, Ids, Scores

_TRAINING_ROWS = 64  # vectors of the sample for each centroid; FAISS draws the sample with a fixed seed
_LARGEST_FP16 = 65504.0
_SLACK = 0.25
_MOST_CLIPPED = 0.1  # share of a new vector's norm that may lie outside the range that sq8 was trained for


class LabelIndexError(ValueError):
    """An index that cannot be built, changed or loaded as asked."""


class Flat:
    """Exact search over the vectors. The other kinds say where they differ."""

    knob: ClassVar[str] = ""
    """the parameter that buys recall for time"""
    lossless: ClassVar[bool] = True
    """whether the vectors are kept as they were given"""
    exhaustive: ClassVar[bool] = True
    """whether a search looks at every label"""
    on_gpu: ClassVar[bool] = True

    def defaults(self, count: int, width: int, given: Mapping[str, int]) -> dict[str, int]:
        """Parameters for `count` labels of `width` dimensions beside the given ones."""
        return {}

    def check(self, label_SD: Scores, given: Mapping[str, int]) -> None:
        """LabelIndexError if these parameters or this many vectors cannot be."""

    def accept(self, index: Any, label_MD: Scores) -> None:
        """LabelIndexError if the trained index cannot represent these new vectors."""

    def make(self, width: int, given: Mapping[str, int]) -> Any:
        """An empty index, not trained."""
        import faiss

        return faiss.IndexIDMap2(self._rows(width, given))

    def _rows(self, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        return faiss.IndexFlatIP(width)

    def train(self, index: Any, label_SD: Scores) -> None:
        index.train(label_SD)

    def read(self, index: Any) -> dict[str, int] | None:
        """The parameters that a FAISS index was made with; None if it is none of this kind."""
        import faiss

        return {} if isinstance(inner(index), faiss.IndexFlat) else None

    def set_knob(self, index: Any, value: int) -> None:
        raise AssertionError("no knob")

    def knob_range(self, index: Any, k: int) -> tuple[int, int]:
        """The least and the most that the knob can be for k labels."""
        raise AssertionError("no knob")

    def ids(self, index: Any) -> Ids:
        """The label ids in the order in which they are kept."""
        import faiss

        return np.asarray(faiss.vector_to_array(index.id_map), dtype=np.int64)

    def vectors(self, index: Any, ids: Ids) -> Scores:
        return np.asarray(index.reconstruct_batch(ids), dtype=np.float32)

    def remove(self, index: Any, gone: Ids) -> Any:
        """The index without `gone`, the same object or a new one."""
        index.remove_ids(gone)
        return index

    def finder(self, index: Any, count: int) -> Find:
        """The search of an index that holds `count` labels."""
        found: Find = index.search
        return found


class ScalarQuantised(Flat):
    """Every dimension rounded by itself."""

    lossless, on_gpu = False, False
    quantiser: ClassVar[str]

    def _rows(self, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        return faiss.IndexScalarQuantizer(width, self._type(), faiss.METRIC_INNER_PRODUCT)

    def read(self, index: Any) -> dict[str, int] | None:
        import faiss

        rows = inner(index)
        return {} if isinstance(rows, faiss.IndexScalarQuantizer) and rows.sq.qtype == self._type() else None

    def _type(self) -> int:
        import faiss

        return int(getattr(faiss.ScalarQuantizer, self.quantiser))


class Fp16(ScalarQuantised):
    """Half precision."""

    quantiser = "QT_fp16"

    def accept(self, index: Any, label_MD: Scores) -> None:
        if label_MD.size and np.abs(label_MD).max() > _LARGEST_FP16:
            raise LabelIndexError(f"fp16 holds values up to {_LARGEST_FP16:g}: normalise the embeddings, or take flat")


class Sq8(ScalarQuantised):
    """256 steps over the range that a dimension had when the index was built, and a quarter more on either side for
    labels added later."""

    quantiser = "QT_8bit"

    def check(self, label_SD: Scores, given: Mapping[str, int]) -> None:
        check_learnable(label_SD, 1, "sq8 learns the range of values")

    def train(self, index: Any, label_SD: Scores) -> None:
        inner(index).sq.rangestat_arg = _SLACK
        index.train(label_SD)

    def accept(self, index: Any, label_MD: Scores) -> None:
        import faiss

        low_D, span_D = faiss.vector_to_array(inner(index).sq.trained).reshape(2, -1)
        lost_M = np.linalg.norm(label_MD - np.clip(label_MD, low_D, low_D + span_D), axis=1)
        outside = lost_M > _MOST_CLIPPED * np.linalg.norm(label_MD, axis=1)
        if outside.any():
            raise LabelIndexError(
                f"{outside.sum()} of {len(label_MD)} vectors (first: row {outside.argmax()}) lie outside the range of "
                "values that sq8 learned: build the index again over all labels"
            )


class ProductQuantised(Flat):
    """Every vector cut into parts, each replaced by the nearest of 2**bits learned ones."""

    lossless, on_gpu = False, False

    def defaults(self, count: int, width: int, given: Mapping[str, int]) -> dict[str, int]:
        parts = max(parts for parts in range(1, max(1, width // 8) + 1) if width % parts == 0)
        return {"parts": parts, "bits": 8}

    def check(self, label_SD: Scores, given: Mapping[str, int]) -> None:
        width = label_SD.shape[1]
        if width % given["parts"]:
            raise LabelIndexError(f"parts={given['parts']} does not divide the width {width}")
        if given["bits"] > 8:
            raise LabelIndexError(f"bits={given['bits']}: a code has 1 to 8 bits")
        check_learnable(label_SD, 2 ** given["bits"], f"bits={given['bits']} learns {2 ** given['bits']} centroids")

    def _rows(self, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        return faiss.IndexPQ(width, given["parts"], given["bits"], faiss.METRIC_INNER_PRODUCT)

    def train(self, index: Any, label_SD: Scores) -> None:
        few_samples(inner(index).pq.cp)
        index.train(label_SD)

    def read(self, index: Any) -> dict[str, int] | None:
        import faiss

        rows = inner(index)
        return {"parts": rows.pq.M, "bits": rows.pq.nbits} if isinstance(rows, faiss.IndexPQ) else None


def nested(index: Any) -> list[Any]:
    """The FAISS indexes inside one another, the given one first."""
    import faiss

    parts = [index]
    for name in ("index", "quantizer", "storage"):
        if getattr(index, name, None) is not None:
            parts += nested(faiss.downcast_index(getattr(index, name)))
    return parts


def inner(index: Any) -> Any:
    """What is inside an IndexIDMap2; None for anything else."""
    import faiss

    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap2) else None


def few_samples(clustering: Any) -> None:
    """Bounds the sample that centroids are learned from, whatever the number of labels."""
    clustering.max_points_per_centroid = _TRAINING_ROWS
    clustering.min_points_per_centroid = 1  # fewer work too, FAISS would only warn on stderr


def check_learnable(label_SD: Scores, needed: int, why: str) -> None:
    """LabelIndexError unless there are `needed` labels to learn from."""
    if len(label_SD) < needed:
        raise LabelIndexError(f"{why}, and there are {len(label_SD)} labels: take flat")
    check_size(label_SD)


def check_size(label_MD: Scores) -> None:
    """LabelIndexError for values so large that FAISS would drop labels, or end the process while it learns."""
    if label_MD.size and np.abs(label_MD).max() > LARGEST:
        raise LabelIndexError(f"embeddings hold values beyond {LARGEST:g}: normalise them, or take flat")
