"""Structures are built once, kept beside the data and read by all."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from dexml.config import Config, ConfigError
from dexml.data.files import DataError
from dexml.distributed import World, launch, leave
from dexml.heads.structure import FOLDER, cached, facts_of, label_features
from dexml.heads.tree import LabelTree
from dexml.heads.treebuild import balanced_tree, clustered_tree
from dexml.session import Session
from tests.helpers.models import toy_config
from tests.helpers.processes import run_ranks


def built(folder: Path, calls: list[int], world: World | None = None, **facts: int) -> LabelTree:
    def build() -> LabelTree:
        calls.append(1)
        return balanced_tree(9, 3, 3)

    return cached(world or World(), folder, "tree", facts, build, LabelTree.load)


def test_the_second_time_it_is_read(tmp_path: Path) -> None:
    calls: list[int] = []
    first = built(tmp_path, calls, size=3)
    assert built(tmp_path, calls, size=3) == first == balanced_tree(9, 3, 3)
    assert len(calls) == 1
    built(tmp_path, calls, size=4)
    assert len(calls) == 2
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


def test_a_damaged_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    first = built(tmp_path, calls)
    next((tmp_path / FOLDER).iterdir()).write_bytes(b"half a fi")
    with caplog.at_level(logging.WARNING):
        assert built(tmp_path, calls) == first
    assert len(calls) == 2 and "it is built again" in caplog.text


def test_three_ranks_build_once_and_an_error_of_rank_0_ends_all(tmp_path: Path) -> None:
    told = run_ranks(3, "tests.heads.test_structure", str(tmp_path))
    assert [line.split() for line in told] == [["1", "fails"], ["0", "fails"], ["0", "fails"]]


def test_a_rank_that_reads_something_else_is_told_of(tmp_path: Path) -> None:
    def load(path: Path, data: str) -> LabelTree:
        raise DataError("no such file")

    with pytest.raises(DataError, match="rank 0: no such file"):
        cached(World(), tmp_path, "tree", {}, lambda: balanced_tree(9, 3, 3), load)


def test_labels_that_share_words_are_alike(tmp_path: Path) -> None:
    session = Session(Config(**toy_config(tmp_path)), World())
    split = session.dataset.trn
    for kind in ("pifa", "pifa+cooc", "text"):
        features = label_features(kind, split, session.tokens)  # type: ignore[arg-type]
        assert features.shape[0] == 30
        assert clustered_tree(features, 8).clusters.size.max() <= 8
    words = label_features("text", split, session.tokens)
    names = list(session.dataset.label_texts)
    one, same, other = (words[[names.index(name)]].toarray()[0] for name in ("red fox", "red boat", "green lamp"))
    assert one @ same > 0.1 and one @ other == pytest.approx(0)
    facts = facts_of(split, session.tokens, size=3)
    assert facts == facts_of(split, session.tokens, size=3) != facts_of(split, session.tokens, size=4)


def test_held_out_points_are_not_clustered_by(tmp_path: Path) -> None:
    session = Session(Config(**toy_config(tmp_path)), World())
    seen = session.training_split.relevance
    assert np.array_equal(np.flatnonzero(np.diff(seen.indptr)), session.train_rows)
    whole = session.dataset.trn.relevance
    assert seen.shape == whole.shape and (seen[session.train_rows] != whole[session.train_rows]).nnz == 0


def main() -> None:
    """A rank of the test above."""
    import sys

    world = World.of(launch())
    calls: list[int] = []
    tree = built(Path(sys.argv[1]), calls, world, size=3)
    assert tree == balanced_tree(9, 3, 3)

    def fail() -> LabelTree:
        raise ConfigError("no tree today")

    try:
        cached(world, Path(sys.argv[1]), "tree", {"other": 1}, fail, LabelTree.load)
    except ConfigError as error:
        assert str(error) == "no tree today"
        print(len(calls), "fails")
    leave()


if __name__ == "__main__":
    main()
