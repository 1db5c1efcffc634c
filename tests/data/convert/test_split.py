import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dexml.data.convert.split import random_rows, unseen_labels, whole_groups

shares = st.floats(0.01, 0.99)


@given(st.integers(2, 60), shares, st.integers(0, 9))
def test_random_rows_are_the_share_and_the_seed_repeats_them(n, share, seed):
    test = random_rows(n, share, seed)
    assert test.sum() == min(max(1, round(share * n)), n - 1)
    assert (test == random_rows(n, share, seed)).all()


@given(st.lists(st.integers(-1, 6), min_size=2, max_size=40), shares, st.integers(0, 9))
def test_no_group_is_divided(groups, share, seed):
    groups_N = np.array(groups)
    test = whole_groups(groups_N, share, seed)
    for group in set(groups) - {-1}:
        assert len(set(test[groups_N == group])) == 1
    parts = len(set(groups) - {-1}) + groups.count(-1)
    assert not test.all()
    assert test.any() == (parts > 1)


def naive_unseen(relevance, share, seed):
    n, labels = relevance.shape
    test = np.zeros(n, bool)
    for label in np.argsort(np.random.default_rng(seed).permutation(labels)):
        if test.sum() >= min(max(1, round(share * n)), n - 1):
            break
        test |= relevance[:, label] > 0
    return test


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_taken_whole_as_by_a_loop(seed):
    rng = np.random.default_rng(seed)
    relevance = (rng.random((30, 12)) < 0.15).astype(float)
    relevance[0] = 0  # a point without labels stays in training
    relevance[1:, 0] = np.maximum(relevance[1:, 0], relevance[1:].sum(axis=1) == 0)
    test = unseen_labels(sparse.csr_matrix(relevance), 0.3, seed)
    assert test.tolist() == naive_unseen(relevance, 0.3, seed).tolist()
    assert not test[0]
    seen = relevance[~test].any(axis=0)
    assert not seen[relevance[test].argmax(axis=1)].all()
