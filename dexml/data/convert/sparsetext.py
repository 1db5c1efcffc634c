"""Sparse matrices as text, `trn_X_Y.txt`: a line `rows columns`, then one line a row, `column:value column:value`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from dexml.data.convert.points import Cells
from dexml.data.convert.textlines import stripped_lines
from dexml.data.files import DataError


def read_sparse_text(path: Path) -> sparse.csr_matrix:
    """float32 [rows, columns]; DataError names file and line."""
    lines = stripped_lines(path)
    try:
        rows, columns = map(int, next(lines, (1, ""))[1].split())
    except ValueError:
        raise DataError(f"{path}:1: the header is not `rows columns`") from None
    cells = Cells()
    for number, line in lines:
        try:
            row = {int(column): float(value) for column, _, value in (pair.partition(":") for pair in line.split())}
        except ValueError:
            raise DataError(f"{path}:{number}: {line[:60]!r} is not `column:value column:value`") from None
        if row and not 0 <= min(row) <= max(row) < columns:
            raise DataError(f"{path}:{number}: columns are 0..{columns - 1}, found {min(row)}..{max(row)}")
        cells.add(row)
    matrix = cells.matrix(np.arange(columns))
    if matrix.shape[0] != rows:
        raise DataError(f"{path}: the header promises {rows} rows, {matrix.shape[0]} are there: copy the file again")
    return matrix
