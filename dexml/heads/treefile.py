"""A label tree in one safetensors file: `parent`, `label_of`, and in its metadata all that is known about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dexml.data.files import atomic_write
from dexml.heads.tree import LabelTree, TreeError

FORMAT = "dexml-label-tree"
VERSION = 1
ARRAYS = ("parent", "label_of")


def write_tree(path: Path, tree: LabelTree) -> None:
    from safetensors.numpy import save

    facts = {"format": FORMAT, "version": VERSION, "n_labels": tree.n_labels, "hash": tree.hash, "meta": tree.meta}
    data = save({"parent": tree.parent, "label_of": tree.label_of}, {"tree": json.dumps(facts, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def read_tree(path: Path, data: str | None) -> LabelTree:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise TreeError(f"{path}: no such label tree")
    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get("tree", "{}"))
            ours = isinstance(facts, dict) and facts.get("format") == FORMAT
            arrays = {name: file.get_tensor(name) for name in ARRAYS} if ours else {}  # a foreign file may be large
    except (SafetensorError, ValueError, OSError) as error:
        raise TreeError(f"{path} is not a label tree or not all of it is there ({error}): build it again") from error
    if not ours:
        raise TreeError(f"{path} holds no label tree (its metadata do not say {FORMAT!r})")
    return _checked(path, facts, arrays, data)


def _checked(path: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray], data: str | None) -> LabelTree:
    if facts.get("version") != VERSION:
        raise TreeError(f"{path}: version {facts.get('version')!r}, this dexml reads {VERSION}: build it again")
    meta, n_labels = facts.get("meta"), facts.get("n_labels")
    right_kinds = all(array.dtype == np.int32 for array in arrays.values())
    if not isinstance(meta, dict) or type(n_labels) is not int or not right_kinds:
        raise TreeError(f"{path}: 'meta' (an object), 'n_labels' (a number) or int32 arrays are missing")
    if data is not None and meta.get("data") != data:
        raise TreeError(
            f"{path} was built for other data (fingerprint {meta.get('data')!r} instead of {data!r}): "
            f"delete it to build a new tree"
        )
    try:
        tree = LabelTree(arrays["parent"], arrays["label_of"], n_labels, meta)
    except TreeError as error:
        raise TreeError(f"{path}: {error}") from error
    if tree.hash != facts.get("hash"):
        raise TreeError(f"{path}: its nodes are not those it was saved with (hash differs): copy or build it again")
    return tree


def data_fingerprint(label_texts: Iterable[str], relevance: sparse.csr_matrix | sparse.csr_array) -> str:
    """Hex SHA-256 over the label texts in their order and the cells [N, L] that are not 0: the `data` of a tree."""
    digest = hashlib.sha256()
    for text in label_texts:
        digest.update(text.encode() + b"\n")
    cells = sparse.csr_array(relevance, copy=True)
    cells.eliminate_zeros()
    cells.sum_duplicates()
    for part in (np.array(cells.shape), cells.indptr, cells.indices):
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()
