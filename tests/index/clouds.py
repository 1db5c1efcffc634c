"""Labels in clouds, and an index of every kind that finds nearly all of them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dexml.index import LabelIndex

Array = npt.NDArray[np.float32]
SMALL: dict[str, dict[str, int]] = {  # enough to find nearly everything among 600 labels of width 16
    "flat": {},
    "fp16": {},
    "sq8": {},
    "pq": {"parts": 16, "bits": 6},
    "ivf": {"nlist": 12, "nprobe": 12},
    "ivfpq": {"nlist": 8, "nprobe": 8, "parts": 16, "bits": 6},
    "hnsw": {"M": 16, "efSearch": 300},
}
LEAST = {"flat": 1.0, "fp16": 0.99, "sq8": 0.95, "pq": 0.75, "ivf": 1.0, "ivfpq": 0.75, "hnsw": 0.99}


def clouds(rows: int, seed: int = 0, width: int = 16, lengths: bool = False) -> Array:
    """Vectors around 30 centres, of norm 1 or of very different norms."""
    centres = np.random.default_rng(99).standard_normal((30, width))
    rng = np.random.default_rng(seed)
    near = centres[rng.integers(0, 30, rows)] + 0.5 * rng.standard_normal((rows, width))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return (near * np.exp(0.5 * rng.standard_normal((rows, 1))) if lengths else near).astype(np.float32)


def build(kind: str, embeddings: Array, ids: Any = None, **changes: int) -> LabelIndex:
    return LabelIndex.build(embeddings, ids, kind, **SMALL[kind] | changes)  # type: ignore[arg-type]


def found(index: LabelIndex, k: int = 10) -> tuple[list[list[int]], list[list[float]]]:
    ids, scores = index.search(clouds(40, seed=5), k)
    return ids.tolist(), scores.tolist()
