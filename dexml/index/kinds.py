"""What each kind of index is in FAISS: how it is made, where its label ids are, how it is searched and changed.

| kind | keeps | searches |
|---|---|---|
| flat | the vectors | every vector |
| fp16, sq8 | 2 or 1 bytes a dimension | every code |
| pq | `parts` codes of `bits` bits | every code |
| ivf, ivfpq | the vectors, or their codes, in `nlist` lists | the `nprobe` lists nearest to the query |
| hnsw | the vectors and a graph, `M` links a vector | the graph, `efSearch` candidates at a time |

Every FAISS object is given the inner product by name: quantisers and graphs default to L2.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from dexml.index.graph import Hnsw
from dexml.index.lists import Ivf, IvfProductQuantised
from dexml.index.rows import Flat, Fp16, LabelIndexError, ProductQuantised, Sq8
from dexml.index.search import Scores


class Parameters(TypedDict, total=False):
    """What a kind can be told, see `MEANINGS`; every one has a default that follows the number of labels."""

    nlist: int
    nprobe: int
    M: int
    efConstruction: int
    efSearch: int
    parts: int
    bits: int


MEANINGS = {
    "nlist": "ivf, ivfpq: lists the labels are divided into",
    "nprobe": "ivf, ivfpq: lists a query looks into; more find more and take longer",
    "M": "hnsw: links of a label; more find more, take longer and more memory",
    "efConstruction": "hnsw: candidates while building; more find more, building takes longer",
    "efSearch": "hnsw: candidates while searching; more find more and take longer",
    "parts": "pq, ivfpq: pieces an embedding is cut into, a divisor of its width",
    "bits": "pq, ivfpq: bits of a piece's code, 1 to 8",
}
KINDS: dict[str, Flat] = {
    "flat": Flat(),
    "fp16": Fp16(),
    "sq8": Sq8(),
    "pq": ProductQuantised(),
    "ivf": Ivf(),
    "ivfpq": IvfProductQuantised(),
    "hnsw": Hnsw(),
}


def check_kind(kind: Any, source: str) -> None:
    """LabelIndexError for a kind that does not exist."""
    if kind not in KINDS:
        raise LabelIndexError(f"index kind {kind!r} {source}; available: {', '.join(KINDS)}")


def settle(kind: str, label_SD: Scores, given: Mapping[str, Any]) -> dict[str, int]:
    """The kind's parameters for these labels, as given or by default; LabelIndexError for one that cannot be."""
    for name, value in given.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise LabelIndexError(f"{name}={value!r}: a whole number from 1 is needed")
    count, width = label_SD.shape
    wanted = KINDS[kind].defaults(count, width, given)
    for name, value in given.items():
        if name not in wanted:
            raise LabelIndexError(f"kind {kind!r} has no parameter {name!r}; it has {', '.join(wanted) or 'none'}")
        wanted[name] = int(value)
    KINDS[kind].check(label_SD, wanted)
    return wanted
