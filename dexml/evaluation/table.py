"""Metrics as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dexml.evaluation.metrics import metric_columns


def metrics_table(rows: Mapping[str, Mapping[str, Any]], columns: list[str] | None = None) -> str:
    """One line a name, percent with two decimals, `-` where a metric was not measured.

    Columns default to those of the metrics TSV, in as many blocks as fit 100 characters.
    """
    names = columns or list(dict.fromkeys(name for row in rows.values() for name in metric_columns(row)))
    left = max(len(name) for name in rows)
    per_block = max(1, (100 - left) // 9)
    blocks = []
    for begin in range(0, len(names), per_block):
        part = names[begin : begin + per_block]
        lines = [" " * left + "".join(f"{name:>9}" for name in part)]
        for name, row in rows.items():
            cells = [f"{row[column]:9.2f}" if column in row else f"{'-':>9}" for column in part]
            lines.append(f"{name:<{left}}" + "".join(cells))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
