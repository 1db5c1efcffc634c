"""The kind that searches a graph of near neighbours."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dexml.index.rows import Flat, LabelIndexError, check_size, inner
from dexml.index.search import Find, Ids, Scores

_MOST_DEAD = 0.25  # share of a graph that removed vectors may take before it is built again
_LONGEST = 10.0  # times the median norm; beyond, a graph by inner products loses vectors
_ANY_LABEL = (0, 2**63 - 1)


class Hnsw(Flat):
    """A graph of near neighbours. FAISS cannot take vectors out of it: the rows of removed labels get the id -1, are
    walked over but never found, and leave when they are more than a quarter of the graph, which is then built again."""

    knob, exhaustive, on_gpu = "efSearch", False, False

    def defaults(self, count: int, width: int, given: Mapping[str, int]) -> dict[str, int]:
        return {"M": 32, "efConstruction": 100, "efSearch": 128}

    def check(self, label_SD: Scores, given: Mapping[str, int]) -> None:
        if given["M"] < 2:
            raise LabelIndexError(f"M={given['M']}: a graph needs 2 links a vector or more")
        check_size(label_SD)
        norms = np.linalg.norm(label_SD, axis=1)
        if len(norms) and norms.max() > _LONGEST * np.median(norms):
            raise LabelIndexError(
                f"the longest vector (norm {norms.max():.4g}) is more than {_LONGEST:g} times the median one "
                f"({np.median(norms):.4g}): a graph by inner products loses vectors; normalise them, or take ivf"
            )

    def accept(self, index: Any, label_MD: Scores) -> None:
        check_size(label_MD)

    def _rows(self, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        rows = faiss.IndexHNSWFlat(width, given["M"], faiss.METRIC_INNER_PRODUCT)
        rows.hnsw.efConstruction, rows.hnsw.efSearch = given["efConstruction"], given["efSearch"]
        return rows

    def read(self, index: Any) -> dict[str, int] | None:
        import faiss

        rows = inner(index)
        if not isinstance(rows, faiss.IndexHNSWFlat):
            return None
        graph: Any = rows.hnsw
        return {"M": graph.nb_neighbors(1), "efConstruction": graph.efConstruction, "efSearch": graph.efSearch}

    def set_knob(self, index: Any, value: int) -> None:
        inner(index).hnsw.efSearch = value

    def knob_range(self, index: Any, k: int) -> tuple[int, int]:
        return k, max(k, index.ntotal)

    def ids(self, index: Any) -> Ids:
        rows = super().ids(index)
        return rows[rows >= 0]

    def remove(self, index: Any, gone: Ids) -> Any:
        import faiss

        rows = super().ids(index)
        rows[np.isin(rows, gone)] = -1
        faiss.copy_array_to_vector(rows, index.id_map)
        kept = np.sort(rows[rows >= 0])
        if len(rows) - len(kept) <= _MOST_DEAD * len(rows):
            return index
        fresh = self.make(index.d, self.read(index) or {})
        fresh.add_with_ids(self.vectors(index, kept), kept)
        return fresh

    def finder(self, index: Any, count: int) -> Find:
        import faiss

        typed: Any = faiss  # its type stubs lack the parameters
        live = faiss.IDSelectorRange(*_ANY_LABEL) if count < index.ntotal else None
        least = inner(index).hnsw.efSearch

        def find(query_ND: Scores, fetch: int) -> tuple[Scores, Ids]:
            wide = typed.SearchParametersHNSW(efSearch=max(least, fetch), sel=live)
            scores, ids = index.search(query_ND, fetch, params=wide)
            return scores, ids

        return find
