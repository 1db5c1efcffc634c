"""Text files, token files and data folders."""

from dexml.data.dataset import DataError, Dataset, Split
from dexml.data.textfile import Lines

__all__ = ["DataError", "Dataset", "Lines", "Split"]
