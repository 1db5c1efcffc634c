"""Metrics as text: the columns of the metrics TSV, a table for the terminal, the lines of pyxclib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRIC_COLUMNS = (
    *("P@1", "P@3", "P@5", "nDCG@1", "nDCG@3", "nDCG@5", "MRR@10"),
    *("PSP@1", "PSP@3", "PSP@5", "R@10", "R@50", "R@100"),
)
"""Columns of the metrics TSV in DEXML's order; R@200, R@300, ... follow where eval_topk reaches them."""


FULL_COLUMNS = tuple(
    f"{name}@{k}"
    for name in ("RP", "PSnDCG", "PSR", "Hit", "Coverage", "best P", "best R", "Micro-F1", "Macro-F1")
    for k in (1, 3, 5)
) + ("Micro-F1", "Macro-F1", "Macro-F1 (test labels)")
"""What `dexml eval --full` adds; the last three are of labels with a probability above one half."""


def metric_columns(metrics: Mapping[str, float]) -> list[str]:
    """TSV columns that `metrics` can fill: METRIC_COLUMNS without what is missing, then R@200, R@300, ..."""
    deeper = sorted(int(name[2:]) for name in metrics if name.startswith("R@") and name.endswith("00"))
    return [name for name in METRIC_COLUMNS if name in metrics] + [f"R@{k}" for k in deeper if k > 100]


def metrics_row(metrics: Mapping[str, float]) -> list[str]:
    """Cells of one TSV row under `metric_columns(metrics)`: percent with 2 decimals."""
    return [f"{metrics[name]:.2f}" for name in metric_columns(metrics)]


def xclib_text(metrics: Mapping[str, float]) -> str:
    """The four lines pyxclib prints (P, nDCG, PSP, PSnDCG at k = 1..5, percent); lines without data are left out."""
    names = ([f"{name}@{k}" for k in range(1, 6)] for name in ("P", "nDCG", "PSP", "PSnDCG"))
    return "\n".join(",".join(f"{metrics[key]:.2f}" for key in keys) for keys in names if metrics.keys() >= set(keys))


def metrics_table(rows: Mapping[str, Mapping[str, Any]], columns: list[str] | None = None) -> str:
    """One line a name, percent with two decimals, `-` where a metric was not measured.

    Columns default to those of the metrics TSV, in as many blocks as fit 100 characters.
    """
    names = columns or list(dict.fromkeys(name for row in rows.values() for name in metric_columns(row)))
    left = max(len(name) for name in rows)
    width = max(7, *map(len, names), 0) + 2
    per_block = max(1, (100 - left) // width)
    blocks = []
    for begin in range(0, len(names), per_block):
        part = names[begin : begin + per_block]
        lines = [" " * left + "".join(f"{name:>{width}}" for name in part)]
        for name, row in rows.items():
            cells = [f"{row[column]:{width}.2f}" if column in row else f"{'-':>{width}}" for column in part]
            lines.append(f"{name:<{left}}" + "".join(cells))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
