"""What is said about a key: a wrong name, a value that does not fit, its line in the table of `--help`."""

import difflib
import re
from types import NoneType
from typing import Literal, get_args, get_origin

from dexml.configkeys import FIELDS
from dexml.yamlfiles import Entry

# Choices where DEXML or a later version has more than this one.
_AVAILABLE_LATER = {"net", "tf_pooler", "data_manager", "optim_bundle", "label_side", "loss"}
_NOUNS = {bool: "yes or no", int: "an integer", float: "a number", str: "a text"}


def did_you_mean(key: str) -> str:
    """`; did you mean 'eval_interval'?`, or nothing when no key is spelled nearly so."""
    near = difflib.get_close_matches(key.replace("-", "_"), FIELDS, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def unknown_key(key: str, entry: Entry) -> str:
    """One line on a key that does not exist: where it is written and which one was meant."""
    return f"{entry.where}: unknown key '{key}'{did_you_mean(key) or '; --help lists all keys'}"


def misfit(key: str, entry: Entry) -> str:
    """One line on a value of the wrong type or out of bounds: where it is written and what was expected."""
    got = "nothing" if entry.value is None else repr(entry.value)
    if key in _AVAILABLE_LATER and isinstance(entry.value, str):
        choices = ", ".join(get_args(FIELDS[key].annotation))
        return f"{entry.where}: {key} {got} is not available in this version; available: {choices}"
    place = entry.where if entry.where == f"--{key}" else f"{entry.where}: {key}"
    hint = " (put quotes around a text with brackets)" if isinstance(entry.value, list) else ""
    return f"{place}: expected {_expected(key)}, got {got}{hint}"


def _expected(key: str) -> str:
    kind = FIELDS[key].annotation
    special = {
        "topk_K": "an integer >= 1 or a text starting with num_pos",
        "track_metric": "P@k, nDCG@k, PSP@k, R@k or MRR@k",
        "linear_size": "numbers separated by commas",
        "tree_levels": "numbers separated by commas",
    }
    if key in special:
        return special[key]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    noun = next(noun for type_, noun in _NOUNS.items() if kind is type_ or type_ in get_args(kind))
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{signs[name]} {getattr(bound, name)}"
        for bound in FIELDS[key].metadata
        for name in signs
        if hasattr(bound, name)
    ]
    return " ".join([noun, " and ".join(bounds)]).strip() + (" or null" if NoneType in get_args(kind) else "")


def config_help() -> str:
    """The table of `--help`: key, type, default and the first sentence of its text."""
    rows = [(f"--{key}", _type_name(key), _default_text(key), _first_sentence(key)) for key in FIELDS]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows)


def _type_name(key: str) -> str:
    kind = FIELDS[key].annotation
    if key == "topk_K":
        return "int|num_pos"
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return next(t.__name__ for t in _NOUNS if kind is t or t in get_args(kind))


def _default_text(key: str) -> str:
    default = FIELDS[key].default
    text = "null" if default is None else str(default) or "''"
    return text if len(text) <= 24 else f"{text[:21]}..."


def _first_sentence(key: str) -> str:
    return " ".join(re.split(r"(?<=\.)\s", FIELDS[key].description or "")[0].split())
