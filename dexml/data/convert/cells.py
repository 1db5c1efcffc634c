"""Labels of one table cell, whatever form it has: a list, a list written out, or names with a delimiter."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from typing import Any

from dexml.data.convert.records import Unreadable

DELIMITER = ","


def label_names(cell: Any, delimiter: str | None = None) -> Sequence[str]:
    """The names as text: "007" stays "007", "NA" stays "NA"; None, NaN and empty cells are no labels.

    A text is split at `delimiter`; without one it may be a written list, `["a", "b"]`, else commas split it.
    """
    if cell is None:
        return []
    if isinstance(cell, str):
        return _names_in(cell, delimiter)
    if isinstance(cell, list | tuple):
        return [name for item in cell for name in _one(item)]
    return _one(cell)


def relevance_values(cell: Any, count: int) -> list[float] | None:
    """One finite number for each of `count` labels, from a cell of any form; None for an empty one, where all are 1."""
    words = label_names(cell)
    if not "".join(words):
        return None
    try:
        values = list(map(float, words))
    except ValueError:
        raise Unreadable(f"relevance {str(cell)[:40]!r} is not a number for each label") from None
    if len(values) != count or not all(map(math.isfinite, values)):
        raise Unreadable(
            f"relevance {str(cell)[:40]!r} has {len(values)} numbers for {count} labels, all must be finite"
        )
    return values


def _names_in(cell: str, delimiter: str | None) -> Sequence[str]:
    if delimiter is None and cell[:1] == "[" and cell[-1:] == "]":
        listed = _written_list(cell)
        if listed is not None:
            return label_names(listed)
    return cell.split(delimiter or DELIMITER)


def _written_list(cell: str) -> list[Any] | None:
    for parse in (_json, ast.literal_eval):  # JSON, or as Python prints a list of constants
        try:
            return parse(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _json(cell: str) -> list[Any]:
    return json.loads(cell, parse_int=str, parse_float=str)


def _one(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool | int):
        return [str(value)]
    if isinstance(value, float):  # a column of numbers with gaps is one of floats in many tools: 7.0 was 7
        return [] if math.isnan(value) else [str(int(value)) if value.is_integer() else str(value)]
    raise Unreadable(f"{str(value)[:40]!r} is a {type(value).__name__}: give a text or a number")
