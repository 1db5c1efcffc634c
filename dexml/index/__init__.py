"""Search over label embeddings. FAISS is imported by the first search, not by this package."""

from dexml.index.index import LabelIndex
from dexml.index.kinds import KINDS
from dexml.index.rows import LabelIndexError
from dexml.index.search import FlatSearcher, SearchInputError, exact_topk, merge_topk, rank_topk
from dexml.index.tuning import Tuning, recall_at, recall_report, tune

__all__ = [
    "KINDS",
    "FlatSearcher",
    "LabelIndex",
    "LabelIndexError",
    "SearchInputError",
    "Tuning",
    "exact_topk",
    "merge_topk",
    "rank_topk",
    "recall_at",
    "recall_report",
    "tune",
]
