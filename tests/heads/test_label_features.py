"""Label features: the worked example of the specification, naive twins, labels without points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.heads import label_features
from dexml.heads.clustering import bisect
from dexml.heads.label_features import TfIdf, concat, cooccurrence, pifa, with_fallback
from tests.helpers.tokens import ListTokens

X = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 1], [0, 0.1, 0.9]], np.float32)
Y = sparse.csr_matrix([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]], dtype=np.float32)
Z = [[0.998470, 0.055300, 0], [1, 0, 0], [0, 0.055300, 0.998470], [0, 0, 1]]


def naive_pifa(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    rows = []
    for label in range(y.shape[1]):
        total = sum((x[i] / (np.linalg.norm(x[i]) or 1) for i in range(len(x)) if y[i, label]), np.zeros(x.shape[1]))
        rows.append(total / (np.linalg.norm(total) or 1))
    return np.array(rows)


def dense(features: object) -> np.ndarray:
    return features.toarray() if sparse.issparse(features) else np.asarray(features)


@pytest.mark.parametrize("points", [X, sparse.csr_array(X), sparse.csr_matrix(X)], ids=["dense", "array", "matrix"])
def test_the_worked_example(points: object) -> None:
    np.testing.assert_allclose(dense(pifa(Y, points)), Z, atol=1e-6)
    assert bisect(pifa(Y, points), 2, n_init=16)[-1].tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 8), st.booleans())
def test_blocks_of_any_size_give_the_naive_features(seed: int, n: int, n_labels: int, is_sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random((n, n_labels)) < 0.3).astype(np.float32)
    x = rng.random((n, 5)).astype(np.float32) * (rng.random((n, 5)) < 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_features, "WORK", 3)
        patch.setattr(label_features, "ROWS", 2)
        found = pifa(sparse.csr_array(y), sparse.csr_array(x) if is_sparse else x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(dense(found), naive_pifa(y, x), atol=1e-5)


def test_stored_zeros_are_no_labels_and_graded_relevance_counts_once() -> None:
    y = sparse.csr_array((np.array([0, 5, 1], np.float32), np.array([0, 1, 1]), np.array([0, 2, 3])), shape=(2, 2))
    np.testing.assert_allclose(dense(pifa(y, X[:2])), naive_pifa(np.array([[0, 1], [0, 1]]), X[:2]), atol=1e-6)


def test_embeddings_may_lie_in_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_allclose(pifa(Y, mapped), Z, atol=1e-3)


def test_keep_leaves_the_largest_of_each_label() -> None:
    y, x = sparse.csr_array(np.ones((1, 2))), sparse.csr_array([[1.0, 3, 2, 3]])
    np.testing.assert_allclose(pifa(y, x, keep=2).toarray(), np.array([[0, 1, 0, 1]] * 2) / np.sqrt(2), atol=1e-6)
    assert (pifa(y, x, keep=9) != pifa(y, x)).nnz == 0
    with pytest.raises(ConfigError, match="keep is 0"):
        pifa(y, x, keep=0)


def test_points_and_truth_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="4 rows of relevance but 3 of point features"):
        pifa(Y, X[:3])


def test_cooccurrence_puts_labels_of_one_point_together() -> None:
    found = cooccurrence(sparse.csr_array([[1, 1, 0], [0, 0, 3.0]])).toarray()
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5, 0], [0.5**0.5, 0.5**0.5, 0], [0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_unseen_labels_get_their_text(kind: type) -> None:
    features, texts = kind(np.array([[0, 2.0], [0, 0], [0, 0]])), kind(np.array([[9.0, 9], [3, 4], [0, 0]]))
    np.testing.assert_allclose(dense(with_fallback(features, texts)), [[0, 1], [0.6, 0.8], [0, 0]], atol=1e-6)


def test_a_fallback_of_another_kind_or_shape_is_refused() -> None:
    for fallback in (X[:, :2], sparse.csr_array(X)):
        with pytest.raises(DataError, match="one kind and shape"):
            with_fallback(X, fallback)


def test_parts_side_by_side_have_the_lengths_of_their_weights() -> None:
    found = concat([X, sparse.csr_array(X)], [3, 4])
    assert sparse.issparse(found)
    lengths = np.sqrt((found.toarray() ** 2).reshape(4, 2, 3).sum(axis=2))
    np.testing.assert_allclose(lengths, [[0.6, 0.8]] * 4, atol=1e-6)
    assert isinstance(concat([X, X]), np.ndarray)
    for parts, weights in (([X, X[:2]], None), ([X], [0.0]), ([X], [1, 1]), ([], None)):
        with pytest.raises(ConfigError, match="one weight > 0 a part"):
            concat(parts, weights)


ROWS = [[101, 7, 7, 5, 102], [101, 5, 102], [], [101, 9, 102]]


def test_tfidf_is_that_of_scikit_learn() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    theirs = text.TfidfVectorizer(analyzer=lambda row: [i for i in row if i < 100]).fit(ROWS)
    tokens = ListTokens(ROWS)
    ours = TfIdf.fit(tokens, leave_out=(101, 102, 10**6)).transform(tokens).toarray()
    np.testing.assert_allclose(ours[:, [5, 7, 9]], theirs.transform(ROWS).toarray(), atol=1e-6)
    assert not np.delete(ours, [5, 7, 9], axis=1).any()


def test_tfidf_in_blocks_and_of_chosen_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ListTokens(ROWS)
    whole = TfIdf.fit(tokens)
    monkeypatch.setattr(label_features, "ROWS", 1)
    assert TfIdf.fit(tokens).idf.tolist() == whole.idf.tolist()
    rows = np.array([3, 0])
    assert (TfIdf.fit(tokens).transform(tokens, rows) != whole.transform(tokens)[rows]).nnz == 0
    few = TfIdf.fit(tokens, np.array([1]))
    assert np.flatnonzero(few.idf).tolist() == [5, 101, 102]
    assert few.transform(tokens)[[3]].nnz == 2  # 9 was never seen
    assert few.transform(tokens, np.array([], int)).shape == (0, 103)
