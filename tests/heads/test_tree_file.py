"""Tree files: what was saved comes back, what is broken, foreign or of other data is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import torch
from safetensors.numpy import save_file
from scipy import sparse
from torch import bfloat16, zeros

from dexml.heads.tree import LabelTree, TreeError
from dexml.heads.treefile import data_fingerprint
from tests.heads.trees import T

META = {"builder": "given", "seed": 3, "data": "abc"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "tree.safetensors"
    LabelTree(T.parent, T.label_of, 4, META).save(path)
    return path


def write(path: Path, parent: np.ndarray = T.parent, label_of: np.ndarray = T.label_of, **facts: object) -> Path:
    """A tree file with these facts instead of the right ones."""
    right = {"format": "dexml-label-tree", "version": 1, "n_labels": 4, "hash": T.hash, "meta": META}
    save_file({"parent": parent, "label_of": label_of}, path, {"tree": json.dumps(right | facts)})
    return path


def test_a_saved_tree_comes_back(file: Path) -> None:
    tree = LabelTree.load(file, data="abc")
    assert tree == T and tree.hash == T.hash and tree.meta == META
    assert [path.name for path in file.parent.iterdir()] == ["tree.safetensors"]
    assert LabelTree.load(write(file.parent / "by hand")) == T


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(TreeError, match=r"tree\.safetensors"):
            LabelTree.load(file)


def test_a_changed_byte_never_passes_for_the_tree(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    for at in range(len(whole)):
        changed = whole.copy()
        changed[at] ^= 1
        file.write_bytes(changed)
        try:
            assert LabelTree.load(file, data="abc") == T  # it was in the metadata
        except TreeError as error:
            assert str(file) in str(error)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="no such label tree"):
        LabelTree.load(tmp_path / "absent")
    foreign = tmp_path / "foreign"
    foreign.write_text("label\n")
    with pytest.raises(TreeError, match="is not a label tree"):
        LabelTree.load(foreign)
    for weights in (np.zeros(3, np.float32), np.zeros(0, np.float16)):
        save_file({"weight": weights}, foreign)
        with pytest.raises(TreeError, match="holds no label tree"):
            LabelTree.load(foreign)


def test_weights_that_numpy_cannot_hold_are_refused_too(tmp_path: Path) -> None:
    torch.save_file({"weight": zeros(3, dtype=bfloat16)}, tmp_path / "model.safetensors")
    with pytest.raises(TreeError, match="holds no label tree"):
        LabelTree.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"version": 2}, "version 2, this dexml reads 1"),
        ({"format": "x"}, "holds no label tree"),
        ({"hash": "0"}, "hash differs"),
        ({"n_labels": 3}, "labels 3 are out of range"),
        ({"n_labels": 5}, "labels 4 have no leaf"),
        ({"n_labels": "4"}, "n_labels"),
        ({"meta": None}, "meta"),
        ({"parent": T.parent.astype(np.int64)}, "int32"),
        ({"parent": np.array([-1, 0, 0, 1, 1, 2, 1], np.int32)}, "not numbered breadth first"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, facts: dict, fault: str) -> None:
    with pytest.raises(TreeError, match=fault) as caught:
        LabelTree.load(write(tmp_path / "tree", **facts))
    assert str(tmp_path / "tree") in str(caught.value)


def test_a_tree_of_other_data_is_refused(file: Path) -> None:
    with pytest.raises(TreeError, match=r"built for other data.*delete it"):
        LabelTree.load(file, data="abd")


def test_a_failed_save_leaves_the_file_that_was_there(file: Path) -> None:
    with pytest.raises(TypeError):
        LabelTree(T.parent, T.label_of, 4, {"seed": object()}).save(file)
    assert LabelTree.load(file).meta == META


def test_the_fingerprint_tells_labels_and_truth_but_not_their_storage() -> None:
    truth = sparse.csr_matrix([[1, 0, 2], [0, 1, 0]], dtype=np.float32)
    texts = ["a", "b", "c"]
    found = data_fingerprint(texts, truth)
    stored_zero = sparse.csr_array((np.ones(4), np.array([2, 0, 1, 2]), np.array([0, 2, 4])), shape=(2, 3))
    stored_zero.data[3] = 0
    assert data_fingerprint(texts, stored_zero) == found
    assert data_fingerprint(["a", "b", "d"], truth) != found
    assert data_fingerprint(texts, truth[:1]) != found
    assert data_fingerprint(texts, truth[::-1]) != found
