import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexml.data import Lines, duplicates
from dexml.data.duplicates import find, fold, line_hashes, near_duplicates, repeats, words_of
from tests.helpers.datasets import write_lines

TEXTS = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=12), max_size=8)


def slow_words(text):
    return re.findall(r"[^\W_]+", fold(text))


def slow_similarity(one, other):
    a, b = set(slow_words(one)), set(slow_words(other))
    return len(a & b) / max(1, len(a | b))


@given(TEXTS)
def test_hashes_are_equal_where_texts_are(texts):
    exact, folded = line_hashes(texts), words_of(texts).text_hashes()
    assert len(exact) == len(folded) == len(texts)
    for i, one in enumerate(texts):
        assert (exact[i] == duplicates.NOTHING) == (not one)
        assert (folded[i] == duplicates.NOTHING) == (not slow_words(one))
        for j, other in enumerate(texts):
            assert (exact[i] == exact[j]) == (one == other)
            assert (folded[i] == folded[j]) == (slow_words(one) == slow_words(other))


@given(TEXTS)
def test_distinct_words_are_those_of_a_set(texts):
    words = words_of(texts)
    assert np.diff(words.offsets).tolist() == [len(slow_words(text)) for text in texts]
    assert np.diff(words.distinct().offsets).tolist() == [len(set(slow_words(text))) for text in texts]


def test_a_hash_does_not_depend_on_the_neighbours():
    alone = np.concatenate([line_hashes([text]) for text in ("a b", "", "c")])
    assert (line_hashes(["a b", "", "c"]) == alone).all()


def test_case_punctuation_and_compatible_characters_do_not_tell_texts_apart():
    folded = words_of(["The CAT, sat!", "the  cat sat", "ｔｈｅ cat_sat", "the cats sat"]).text_hashes()
    assert folded[0] == folded[1] == folded[2] != folded[3]


def test_repeats_are_all_but_the_first_and_find_gives_the_first():
    hashes = line_hashes(["a", "b", "", "a", "", "a"])
    assert repeats(hashes).tolist() == [3, 5]
    assert find(line_hashes(["a", "", "c"]), hashes).tolist() == [0, -1, -1]
    assert find(line_hashes(["a"]), line_hashes([])).tolist() == [-1]


@pytest.fixture(scope="module")
def random_texts():
    """Texts of 1 to 30 of 2,000 words; half of `few` are texts of `many` with some words exchanged."""
    rng = np.random.default_rng(0)
    many = [" ".join(f"w{word}" for word in rng.integers(0, 2000, rng.integers(1, 30))) for _ in range(2000)]
    few = [" ".join(f"w{word}" for word in rng.integers(0, 2000, rng.integers(1, 30))) for _ in range(100)]
    for text in many[:200]:
        words = text.split()
        words[int(rng.integers(len(words)))] = "other"
        few.append(" ".join(rng.permutation(words)))
    return few, many


@pytest.mark.parametrize("batch", [64, 1 << 15])
def test_near_duplicates_are_real_and_nearly_all_are_found(tmp_path, monkeypatch, random_texts, batch):
    monkeypatch.setattr(duplicates, "BATCH", batch)
    few, many = random_texts
    files = [Lines(write_lines(tmp_path / name, texts)) for name, texts in (("few", few), ("many", many))]
    match = near_duplicates(files[0], np.arange(len(few)), files[1])
    assert all(slow_similarity(few[i], many[j]) >= duplicates.SIMILAR for i, j in enumerate(match) if j >= 0)
    true = [max(slow_similarity(text, other) for other in many) >= duplicates.SIMILAR for text in few]
    assert sum(true) > 100
    assert (match >= 0).sum() >= 0.97 * sum(true)


def test_only_the_rows_asked_for_are_compared_and_empty_texts_match_nothing(tmp_path):
    few = Lines(write_lines(tmp_path / "few", ["a b c d e", "", "?!", "b a c d e"]))
    many = Lines(write_lines(tmp_path / "many", ["", "?", "e d c b a"]))
    assert near_duplicates(few, np.array([1, 2, 3]), many).tolist() == [-1, -1, 2]
    assert near_duplicates(few, np.array([], np.int64), many).tolist() == []
