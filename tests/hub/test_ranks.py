"""The label vectors of a bundle, sent to rank 0 block by block: one process equals two and three, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dexml.data.rowfile import append_rows, safetensors_header
from dexml.hub.bundle import EMBEDDINGS
from dexml.index import LabelIndex
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks
from tests.hub.ranks import CASES


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("ranks")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model")
    found = {}
    for n in (1, 2, 3):
        told = run_ranks(n, "tests.hub.ranks", str(root), str(root / f"{n}"))
        assert [line.splitlines()[-1] for line in told] == ["told: no space left"] * n
        found[n] = root / f"{n}" / "DEXML" / "Toy"
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_files_of_one_process(folders: dict[int, Path], case: str) -> None:
    one = {path.name: path.read_bytes() for path in (folders[1] / case).rglob("*") if path.is_file()}
    assert sorted(one) == ["index.json", "label_embeddings.safetensors", "labels.txt", "vectors-000001.faiss"]
    for n in (2, 3):
        many = {path.name: path.read_bytes() for path in (folders[n] / case).rglob("*") if path.is_file()}
        assert many == one


@pytest.mark.parametrize("case", CASES)
def test_the_index_holds_the_vectors(folders: dict[int, Path], case: str) -> None:
    kept = load_file(folders[2] / case / EMBEDDINGS)["labels"]
    assert kept.shape == (29, 32) and kept.any(1).all()
    assert np.array_equal(LabelIndex.load(folders[2] / case / "index").vectors(), kept)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5), (123456, 2)])
def test_a_file_written_row_by_row_is_that_of_safetensors(tmp_path: Path, shape: tuple[int, int]) -> None:
    label_LD = np.random.default_rng(0).standard_normal(shape, np.float32)
    save_file({"labels": label_LD}, tmp_path / "whole")
    (tmp_path / "rows").write_bytes(safetensors_header("labels", shape))
    for part in np.array_split(label_LD, 3):
        append_rows(tmp_path / "rows", part)
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "whole").read_bytes()
