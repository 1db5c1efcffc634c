import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from dexml.data import DataError, Dataset
from dexml.data.builtin import BUILTIN
from dexml.data.synthetic import Synthetic, _shuffled

SMALL = Synthetic(points=3000, test_points=500, labels=200, vocabulary=300)


def test_the_folder_is_as_asked(tmp_path):
    words = ["--points", "50", "--test-points", "9", "--labels", "20", "--vocabulary", "40", "--seed", "3"]
    data = Dataset.load(BUILTIN["synthetic"].make(tmp_path / "S", words))
    assert (len(data.trn), len(data.tst), data.n_labels) == (50, 9, 20)
    assert json.loads((tmp_path / "S" / "synthetic.json").read_text())["seed"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["S"]


@pytest.mark.parametrize("size", [7, 499, 3000])
def test_the_chunk_size_changes_nothing(tmp_path, size):
    one, other = SMALL.write(tmp_path / "a"), SMALL.write(tmp_path / "b", size)
    for name in ("raw/trn_X.txt", "raw/tst_X.txt", "raw/Y.txt"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for name in ("Y.trn.npz", "Y.tst.npz"):
        assert (sparse.load_npz(one / name) != sparse.load_npz(other / name)).nnz == 0


def test_a_larger_set_begins_with_a_smaller_one():
    few = next(SMALL.chunks("trn", 100))[0]
    assert next(replace(SMALL, points=9999).chunks("trn", 200))[0].startswith(few)


def test_another_seed_gives_other_texts_and_splits_differ():
    texts = {next(replace(SMALL, seed=seed).chunks(split, 100))[0] for seed in (0, 1) for split in ("trn", "tst")}
    assert len(texts) == 4


def test_a_text_says_the_first_word_of_each_of_its_labels_and_the_noise():
    text, relevance = next(SMALL.chunks("trn", 1000))
    lines = text.splitlines()
    assert len(lines) == 1000
    for row, line in enumerate(lines):
        said = Counter(line.split())
        own = SMALL.label_words(relevance.indices[relevance.indptr[row] : relevance.indptr[row + 1]].astype(np.int64))
        known = Counter(SMALL.words[own[own >= 0]].tolist())
        assert all(said[SMALL.words[first]] for first in own[:, 0])
        assert (said - known).total() <= SMALL.noise <= said.total() - len(own)


def test_label_texts_differ_and_have_two_to_four_words(tmp_path):
    folder = replace(SMALL, labels=90_000, points=1, test_points=1).write(tmp_path / "a")
    lines = (folder / "raw" / "Y.txt").read_text().splitlines()
    assert len(set(lines)) == 90_000  # all pairs of 300 words
    assert {len(line.split()) for line in lines} == {2, 3, 4}


def test_frequencies_fall_by_zipf_and_the_mean_is_as_asked():
    spec = Synthetic(points=40_000, labels=500, unseen=0, labels_per_point=2.5)
    relevance = sparse.vstack([part for _, part in spec.chunks("trn", 10_000)])
    counts = np.sort(np.bincount(relevance.indices, minlength=500))[::-1]
    slope = np.polyfit(np.log(np.arange(10, 200)), np.log(counts[9:199]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    assert 2.0 < relevance.nnz / 40_000 <= 2.5  # a label drawn twice counts once
    assert relevance.data.max() == 1


def test_unseen_labels_are_in_the_test_split_only():
    trn, tst = (next(replace(SMALL, unseen=0.3).chunks(split, 3000))[1] for split in ("trn", "tst"))
    unseen = replace(SMALL, unseen=0.3).is_unseen
    assert 0.2 < unseen.mean() < 0.4
    assert not unseen[trn.indices].any()
    assert unseen[tst.indices].any()


@pytest.mark.parametrize("size", [2, 3, 10, 90_000, 10**12])
def test_shuffled_is_one_to_one(size):
    numbers = np.arange(min(size, 10_000))
    shuffled = _shuffled(numbers, size)
    assert len(np.unique(shuffled)) == len(numbers)
    assert 0 <= shuffled.min() <= shuffled.max() < size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": 1}, "--labels is 1: it must be between 2"),
        ({"vocabulary": 10}, "--vocabulary is 10: it must be at least the root of 200 labels"),
        ({"labels_per_point": 0.5}, "--labels-per-point is 0.5"),
        ({"unseen": float("nan")}, "--unseen is nan"),
    ],
)
def test_a_value_that_makes_no_set_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        replace(SMALL, **change).write(tmp_path / "S")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(DataError, match="is there already"):
        SMALL.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
