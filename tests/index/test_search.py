import numpy as np
import numpy.typing as npt
import pytest

from dexml.index import FlatSearcher, SearchInputError, exact_topk, merge_topk, rank_topk, search

Array = npt.NDArray[np.float32]


def naive_topk(query_ND: Array, label_SD: Array, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Every score, then a plain sort by (-score, id)."""
    ids, scores = [], []
    for row in query_ND @ label_SD.T:
        best = sorted(range(len(row)), key=lambda label: (-row[label], label))[:k]
        ids.append(best + [-1] * (k - len(best)))
        scores.append([float(row[label]) for label in best] + [-np.inf] * (k - len(best)))
    return ids, scores


def integers(seed: int, rows: int, width: int, top: int) -> Array:
    """Small whole numbers: inner products are exact in float32 and tie often."""
    return np.random.default_rng(seed).integers(-top, top + 1, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("k", [1, 5, 33, 400, 401])
@pytest.mark.parametrize("top", [0, 1, 3])
def test_equals_a_plain_sort_with_ties_everywhere(
    k: int, block: int, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_WIDE_CELLS", 500)  # ties are settled a few rows at a time
    query_ND, label_SD = integers(k, 15, 4, top), integers(block, 400, 4, top)
    ids, scores = exact_topk(query_ND, label_SD, k, block)
    wanted_ids, wanted_scores = naive_topk(query_ND, label_SD, k)
    assert ids.dtype == np.int64 and scores.dtype == np.float32
    assert ids.tolist() == wanted_ids and scores.tolist() == wanted_scores


def test_a_tie_far_beyond_the_cut_goes_to_the_smallest_ids() -> None:
    label_SD = np.ones((5000, 3), dtype=np.float32)
    label_SD[4000] = 2
    ids, _ = exact_topk(np.ones((2, 3)), label_SD, 4)
    assert ids.tolist() == [[4000, 0, 1, 2]] * 2


def test_equal_label_vectors_at_any_place_tie() -> None:
    rng = np.random.default_rng(1)
    label_SD = rng.standard_normal((9, 37)).astype(np.float32)[rng.integers(0, 9, 1000)]
    ids, scores = exact_topk(rng.standard_normal((40, 37)), label_SD, 50)
    assert np.array_equal(np.stack(rank_topk(ids, scores)), np.stack([ids, scores]))
    copies = [np.flatnonzero((label_SD == label_SD[row[0]]).all(axis=1))[:50] for row in ids]
    assert all(np.array_equal(row[: len(first)], first) for row, first in zip(ids, copies, strict=True))


def test_shards_merge_to_the_whole() -> None:
    query_ND, label_SD = integers(0, 20, 3, 2), integers(1, 50, 3, 2)
    parts = []
    for start, stop in ((0, 7), (7, 7), (7, 48), (48, 50)):
        ids, scores = exact_topk(query_ND, label_SD[start:stop], 10)
        parts.append((np.where(ids >= 0, ids + start, -1), scores))
    whole = exact_topk(query_ND, label_SD, 10)
    for merged in (merge_topk(parts, 10), merge_topk(parts[::-1], 10)):
        assert np.array_equal(merged[0], whole[0]) and np.array_equal(merged[1], whole[1])


def test_merging_pads_and_checks_rows() -> None:
    ids, scores = merge_topk([([[3]], [[0.5]]), ([[1]], [[0.5]])], 4)
    assert ids.tolist() == [[1, 3, -1, -1]] and scores.tolist() == [[0.5, 0.5, -np.inf, -np.inf]]
    with pytest.raises(SearchInputError, match=r"\[1, 2\] rows"):
        merge_topk([([[3]], [[0.5]]), ([[1], [2]], [[0.5], [0.1]])], 1)
    with pytest.raises(SearchInputError, match="nothing to merge"):
        merge_topk([], 1)


def test_ranking_puts_padding_last_and_copies() -> None:
    ids = np.array([[-1, 4, 2, 9], [5, 1, -1, -1], [7, 3, 2, 1]])
    scores = np.array([[9.0, 1, 1, 2], [0.5, 0.5, 0, 7], [4, 3, 2, 1]], dtype=np.float32)
    ranked_ids, ranked = rank_topk(ids, scores)
    assert ranked_ids.tolist() == [[9, 2, 4, -1], [1, 5, -1, -1], [7, 3, 2, 1]]
    assert ranked.tolist() == [[2, 1, 1, -np.inf], [0.5, 0.5, -np.inf, -np.inf], [4, 3, 2, 1]]
    assert ids[0, 0] == -1 and scores[0, 0] == 9
    with pytest.raises(SearchInputError, match=r"row 1.*NaN"):
        rank_topk([[1], [2]], [[0.0], [np.nan]])


def test_a_searcher_answers_block_after_block() -> None:
    query_ND, label_SD = integers(2, 30, 4, 3), integers(3, 60, 4, 3)
    searcher = FlatSearcher(label_SD)
    ids = np.concatenate([searcher.search(query_ND[rows], 9)[0] for rows in (slice(0, 11), slice(11, 30))])
    assert np.array_equal(ids, exact_topk(query_ND, label_SD, 9)[0])


def test_no_queries_and_no_labels_are_fine() -> None:
    assert exact_topk(np.zeros((0, 3)), np.zeros((4, 3)), 2)[0].shape == (0, 2)
    ids, scores = exact_topk(np.zeros((2, 3)), np.zeros((0, 3)), 2)
    assert ids.tolist() == [[-1, -1]] * 2 and np.isneginf(scores).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_non_finite_rows_are_named(bad: float) -> None:
    broken = np.zeros((4, 3))
    broken[2, 1] = bad
    with pytest.raises(SearchInputError, match="queries row 2"):
        exact_topk(broken, np.zeros((4, 3)), 1)
    with pytest.raises(SearchInputError, match="labels row 2"):
        exact_topk(np.zeros((4, 3)), broken, 1)


def test_scores_beyond_float32_are_refused() -> None:
    with pytest.raises(SearchInputError, match="overflow"):
        exact_topk(np.full((1, 2), 3e38), np.full((3, 2), 3e38), 1)


def test_wrong_shapes_and_k_are_named() -> None:
    with pytest.raises(SearchInputError, match="queries have width 2, labels 3"):
        exact_topk(np.zeros((1, 2)), np.zeros((1, 3)), 1)
    with pytest.raises(SearchInputError, match="k=0"):
        exact_topk(np.zeros((1, 3)), np.zeros((1, 3)), 0)
    with pytest.raises(SearchInputError, match="block=0"):
        exact_topk(np.zeros((1, 3)), np.zeros((1, 3)), 1, block=0)
    with pytest.raises(SearchInputError, match=r"labels must be .* \(3,\)"):
        FlatSearcher(np.zeros(3))
