"""Kinds that divide the labels into lists, of which a query looks into the nearest few."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dexml.index.rows import Flat, LabelIndexError, ProductQuantised, check_learnable, check_size, few_samples
from dexml.index.search import Ids, Scores


class Ivf(Flat):
    """Vectors in lists around learned directions. FAISS keeps the label ids in the lists: no IndexIDMap, which would
    shift ids as the rows of a flat index shift."""

    knob, exhaustive = "nprobe", False

    def defaults(self, count: int, width: int, given: Mapping[str, int]) -> dict[str, int]:
        usual = max(1, min(round(4 * count**0.5), count // 39))  # FAISS asks for 39 vectors a centroid
        nlist = given.get("nlist", usual)
        return {"nlist": nlist, "nprobe": min(nlist, max(8, nlist // 8))}

    def check(self, label_SD: Scores, given: Mapping[str, int]) -> None:
        check_learnable(label_SD, given["nlist"], f"nlist={given['nlist']} learns as many centroids")
        if given["nprobe"] > given["nlist"]:
            raise LabelIndexError(f"nprobe={given['nprobe']} is more than the nlist={given['nlist']} lists there are")

    def accept(self, index: Any, label_MD: Scores) -> None:
        check_size(label_MD)

    def make(self, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        index = self._lists(faiss.IndexFlatIP(width), width, given)
        index.cp.spherical = True  # centroids are directions: long ones would draw every vector
        index.nprobe = given["nprobe"]
        return index

    def _lists(self, quantiser: Any, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        return faiss.IndexIVFFlat(quantiser, width, given["nlist"], faiss.METRIC_INNER_PRODUCT)

    def train(self, index: Any, label_SD: Scores) -> None:
        few_samples(index.cp)
        index.train(label_SD)

    def read(self, index: Any) -> dict[str, int] | None:
        import faiss

        return {"nlist": index.nlist, "nprobe": index.nprobe} if isinstance(index, faiss.IndexIVFFlat) else None

    def set_knob(self, index: Any, value: int) -> None:
        index.nprobe = value

    def knob_range(self, index: Any, k: int) -> tuple[int, int]:
        return 1, index.nlist

    def ids(self, index: Any) -> Ids:
        import faiss

        lists, parts = index.invlists, [np.empty(0, np.int64)]
        for number in range(index.nlist):
            if size := lists.list_size(number):
                parts.append(faiss.rev_swig_ptr(lists.get_ids(number), size).copy())
        return np.concatenate(parts)

    def vectors(self, index: Any, ids: Ids) -> Scores:
        import faiss

        map_types: Any = faiss  # not in its type stubs
        index.set_direct_map_type(map_types.DirectMap.Hashtable)
        try:
            return super().vectors(index, ids)
        finally:
            index.set_direct_map_type(map_types.DirectMap.NoMap)


class IvfProductQuantised(Ivf):
    """Product-quantised differences from the centroids, in lists."""

    lossless, on_gpu = False, False
    _codes = ProductQuantised()

    def defaults(self, count: int, width: int, given: Mapping[str, int]) -> dict[str, int]:
        return super().defaults(count, width, given) | self._codes.defaults(count, width, given)

    def check(self, label_SD: Scores, given: Mapping[str, int]) -> None:
        super().check(label_SD, given)
        self._codes.check(label_SD, given)

    def _lists(self, quantiser: Any, width: int, given: Mapping[str, int]) -> Any:
        import faiss

        shape = (width, given["nlist"], given["parts"], given["bits"])
        return faiss.IndexIVFPQ(quantiser, *shape, faiss.METRIC_INNER_PRODUCT)

    def train(self, index: Any, label_SD: Scores) -> None:
        few_samples(index.pq.cp)
        super().train(index, label_SD)

    def read(self, index: Any) -> dict[str, int] | None:
        import faiss

        if not isinstance(index, faiss.IndexIVFPQ):
            return None
        return {"nlist": index.nlist, "nprobe": index.nprobe, "parts": index.pq.M, "bits": index.pq.nbits}
