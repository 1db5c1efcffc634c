"""Search over label embeddings. FAISS is imported by the first search, not by this package."""

from dexml.index.index import LabelIndex, LabelIndexError
from dexml.index.search import FlatSearcher, SearchInputError, exact_topk, merge_topk, rank_topk, search_flat

__all__ = [
    "FlatSearcher",
    "LabelIndex",
    "LabelIndexError",
    "SearchInputError",
    "exact_topk",
    "merge_topk",
    "rank_topk",
    "search_flat",
]
