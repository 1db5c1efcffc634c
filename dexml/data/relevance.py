"""The matrices of a data folder, checked cell by cell: relevance (`Y.*.npz`) and filters (`filter_labels_*.txt`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.files import DataError
from dexml.data.textfile import Lines

NO_RELEVANCE = 1e-8  # cells up to here count as zeros
PAIR = re.compile(r"\s*(-?\d{1,18})\s+(-?\d{1,18})\s*", re.ASCII)


def load_relevance(path: Path, texts: Lines, labels: Lines) -> sparse.csr_matrix:
    """Points x labels, float32, sorted column indices, cells <= 1e-8 dropped; DataError names the file and the mend."""
    matrix = _read_csr(path)
    check_shape(path, matrix.shape, texts, labels)
    _check_values(path, matrix)
    matrix = matrix.astype(np.float32)
    matrix.sum_duplicates()
    matrix.data[matrix.data <= NO_RELEVANCE] = 0
    matrix.eliminate_zeros()
    return matrix


def load_filters(path: Path, n_points: int, n_labels: int) -> sparse.csr_matrix:
    """Points x labels, True where the pair "point label" (0-based) is listed; DataError names file and line."""
    pairs = _read_pairs(path)
    bad = np.flatnonzero(((pairs < 0) | (pairs >= [n_points, n_labels])).any(axis=1))
    if len(bad):
        line = _line_of_pair(path, int(bad[0]))
        point, label = pairs[bad[0]].tolist()
        raise DataError(
            f"{path}:{line}: pair {point} {label} is out of range: "
            f"points are 0..{n_points - 1}, labels 0..{n_labels - 1}"
        )
    cells = np.ones(len(pairs), dtype=bool)
    matrix = sparse.csr_matrix((cells, (pairs[:, 0], pairs[:, 1])), shape=(n_points, n_labels))
    matrix.sort_indices()
    return matrix


def remove_cells(relevance: sparse.csr_matrix, cells: sparse.csr_matrix) -> sparse.csr_matrix:
    """`relevance` without the cells that are True in `cells`."""
    kept = (relevance - relevance.multiply(cells)).tocsr()
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept


def _read_csr(path: Path) -> sparse.csr_matrix:
    try:
        stored = sparse.load_npz(path)
        if hasattr(stored, "check_format"):  # before any conversion, which trusts the indices
            stored.check_format(full_check=True)
        matrix = sparse.csr_matrix(stored)
    except Exception as error:  # zip, zlib, numpy and scipy each raise their own kinds for a damaged file
        raise DataError(
            f"{path}: not a readable scipy sparse matrix ({error}): "
            f"copy it again, or write it with scipy.sparse.save_npz"
        ) from error
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{path}: values of type {matrix.dtype}: relevance must be real numbers")
    return matrix


def check_shape(path: Path, shape: tuple[int, int], texts: Lines, labels: Lines) -> None:
    rows, cols = shape
    if rows != len(texts):
        hint = {1: "is the last line missing?", -1: "is there an extra line?"}.get(
            rows - len(texts), "line i must be the text of row i"
        )
        raise DataError(f"{texts.path} has {len(texts)} lines but {path.name} has {rows} rows: {hint}")
    if cols != len(labels):
        raise DataError(
            f"{labels.path} has {len(labels)} lines but {path.name} has {cols} label columns: "
            f"line i must be the text of label i"
        )


def _check_values(path: Path, matrix: sparse.csr_matrix) -> None:
    with np.errstate(over="ignore"):
        values = matrix.data.astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        row = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        raise DataError(
            f"{path}: relevance {matrix.data[bad[0]]} at row {row}, column {matrix.indices[bad[0]]} (counted from 0; "
            f"{len(bad)} such cells): relevance must be finite and not negative"
        )


def _read_pairs(path: Path) -> NDArray[np.int64]:
    if not any(Lines(path)):  # numpy would warn about a file without data
        return np.empty((0, 2), np.int64)
    try:
        pairs = np.loadtxt(path, dtype=np.int64, ndmin=2, comments=None, encoding="utf-8-sig")
    except ValueError as error:
        _raise_malformed(path, str(error))
    if pairs.shape[1] != 2:
        _raise_malformed(path, f"{pairs.shape[1]} columns")
    return pairs


def _raise_malformed(path: Path, reason: str) -> NoReturn:
    lines = enumerate(Lines(path), start=1)
    wrong = next(((number, text) for number, text in lines if text and not PAIR.fullmatch(text)), None)
    where = f"{path}:{wrong[0]}: {wrong[1][:60]!r}" if wrong else f"{path}: {reason}"
    raise DataError(f'{where} is not a pair of integers "point label"')


def _line_of_pair(path: Path, index: int) -> int:
    """1-based line of the pair with this index: blank lines hold none."""
    filled = (number for number, text in enumerate(Lines(path), start=1) if text)
    return next(number for at, number in enumerate(filled) if at == index)
