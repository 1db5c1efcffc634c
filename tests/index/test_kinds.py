"""Every kind: made for inner products, found again, refused where it cannot be, the same for any sharding."""

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from dexml.index import KINDS, LabelIndex, LabelIndexError, SearchInputError, exact_topk
from dexml.index.rows import nested
from tests.index.clouds import LEAST, SMALL, build, clouds, found


def same_file(one: LabelIndex, other: LabelIndex, folder: Path) -> bool:
    one.save(folder / "one")
    other.save(folder / "other")
    data, other_data = (next((folder / name).glob("*.faiss")).read_bytes() for name in ("one", "other"))
    return data == other_data


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_finds_the_labels_of_largest_inner_product_whatever_their_lengths(kind: str, lengths: bool) -> None:
    label_SD, query_ND = clouds(600, lengths=lengths), clouds(50, seed=5, lengths=lengths)
    ids, scores = build(kind, label_SD).search(query_ND, 10)
    exact = exact_topk(query_ND, label_SD, 10)[0]
    hits = np.mean([np.isin(row, wanted).mean() for row, wanted in zip(ids, exact, strict=True)])
    assert hits >= LEAST[kind] - 0.1 * lengths * (LEAST[kind] < 0.9)
    assert (np.diff(scores, axis=1) <= 0).all()
    true = np.take_along_axis(query_ND @ label_SD.T, ids, axis=1)
    assert np.abs(scores - true).max() <= (2e-6 if KINDS[kind].lossless else 0.3) * np.abs(true).max()


@pytest.mark.parametrize("kind", KINDS)
def test_every_faiss_part_is_told_the_inner_product(kind: str, tmp_path: Path) -> None:
    build(kind, clouds(200)).save(tmp_path)
    index = LabelIndex.load(tmp_path)
    parts = nested(index._index)
    assert len(parts) >= 2
    assert {part.metric_type for part in parts} == {faiss.METRIC_INNER_PRODUCT}


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_keeps_results_ids_parameters_and_meta(kind: str, tmp_path: Path) -> None:
    index = LabelIndex.build(clouds(300), np.arange(300) * 7 + 2, kind, {"model": "abc"}, **SMALL[kind])  # type: ignore[arg-type]
    index.save(tmp_path)
    loaded = LabelIndex.load(tmp_path)
    assert found(loaded) == found(index)
    assert loaded.ids.tolist() == list(range(2, 2102, 7)) and (loaded.kind, loaded.meta) == (kind, {"model": "abc"})
    assert loaded.parameters == index.parameters and loaded.parameters.items() >= SMALL[kind].items()
    assert json.loads((tmp_path / "index.json").read_text())["parameters"] == index.parameters
    assert np.array_equal(loaded.vectors(), index.vectors())


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_come_back_in_the_order_of_ids(kind: str) -> None:
    label_SD, ids = clouds(300), np.random.default_rng(1).permutation(300) + 10
    kept = build(kind, label_SD, ids).vectors()
    wanted = label_SD[np.argsort(ids)]
    if KINDS[kind].lossless:
        assert np.array_equal(kept, wanted)
    assert np.linalg.norm(kept - wanted, axis=1).max() < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_any_sharding_gives_the_same_file(kind: str, tmp_path: Path) -> None:
    label_SD, ids = clouds(260), np.arange(260) * 3
    whole = build(kind, label_SD, ids)
    cuts = [(200, 260), (0, 1), (90, 200), (1, 90), (90, 90)]
    shards = [(ids[start:stop], label_SD[start:stop]) for start, stop in cuts]
    joined = LabelIndex.from_shards(iter(shards), kind, **SMALL[kind])  # type: ignore[arg-type]
    mixed = np.random.default_rng(2).permutation(260)
    assert same_file(whole, joined, tmp_path / "a")
    assert same_file(whole, build(kind, label_SD[mixed], ids[mixed]), tmp_path / "b")


def test_shards_must_be_of_one_width_and_share_no_id() -> None:
    for shards, message in (
        ([], "at least one shard"),
        ([([0], clouds(1)), ([1], clouds(1, width=8))], r"widths \[8, 16\]"),
        ([([0], clouds(1)), ([0], clouds(1))], "given twice"),
        ([([0, 1], clouds(1))], "1 integers"),
    ):
        with pytest.raises(LabelIndexError, match=message):
            LabelIndex.from_shards(shards)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_more_places_than_labels_are_padded(kind: str) -> None:
    index = build(kind, clouds(70))
    ids, scores = index.search(clouds(3, seed=5), 90)
    assert (ids[:, 70:] == -1).all() and np.isneginf(scores[:, 70:]).all()
    assert [sorted(row) for row in ids[:, :70].tolist()] == [list(range(70))] * 3
    assert index.search(np.zeros((0, 16)), 4)[0].shape == (0, 4)


def test_lists_that_hold_fewer_than_k_labels_leave_places_empty() -> None:
    index = build("ivf", clouds(600), nlist=60, nprobe=1)
    ids, scores = index.search(clouds(20, seed=5), 50)
    held = (ids >= 0).sum(axis=1)
    assert held.min() > 0 and held.max() < 50
    assert (np.isneginf(scores) == (ids < 0)).all()
    assert all((row[:n] >= 0).all() for row, n in zip(ids, held, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_ties_go_to_the_smaller_id_far_beyond_the_cut(kind: str) -> None:
    label_SD = np.repeat(clouds(70), 6, axis=0)  # six of every vector
    index = build(kind, label_SD, np.arange(420)[::-1])
    ids, scores = index.search(clouds(15, seed=5), 9)
    for row, row_scores in zip(ids.tolist(), scores.tolist(), strict=True):
        assert row == [i for _, i in sorted(zip((-score for score in row_scores), row, strict=True))]
    if KINDS[kind].exhaustive:
        ones = build(kind, np.repeat(clouds(1), 300, axis=0)) if kind != "pq" else None
        assert ones is None or ones.search(clouds(2, seed=5), 4)[0].tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_change_results(kind: str) -> None:
    index, query_ND = build(kind, clouds(300)), clouds(23, seed=5)
    whole = index.search(query_ND, 8)
    for block in (1, 7):
        ids, scores = index.search(query_ND, 8, block)
        assert np.array_equal(ids, whole[0]) and np.allclose(scores, whole[1], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("ivf", {"M": 4}, "kind 'ivf' has no parameter 'M'; it has nlist, nprobe"),
        ("flat", {"nprobe": 4}, "has no parameter 'nprobe'; it has none"),
        ("ivf", {"nlist": 0}, "nlist=0: a whole number from 1"),
        ("ivf", {"nlist": 2.5}, r"nlist=2\.5: a whole number"),
        ("ivf", {"nlist": True}, "nlist=True: a whole number"),
        ("ivf", {"nlist": 41}, "nlist=41 learns as many centroids, and there are 40 labels: take flat"),
        ("ivf", {"nlist": 4, "nprobe": 5}, "nprobe=5 is more than the nlist=4"),
        ("pq", {"parts": 3}, "parts=3 does not divide the width 16"),
        ("pq", {"bits": 9}, "1 to 8 bits"),
        ("pq", {}, "bits=8 learns 256 centroids, and there are 40 labels"),
        ("ivfpq", {"bits": 6}, "bits=6 learns 64 centroids"),
        ("hnsw", {"M": 1}, "2 links"),
    ],
)
def test_parameters_that_cannot_be_are_refused(kind: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelIndexError, match=message):
        LabelIndex.build(clouds(40), kind=kind, **parameters)


def test_defaults_follow_the_number_of_labels() -> None:
    assert KINDS["ivf"].defaults(100, 384, {}) == {"nlist": 2, "nprobe": 2}
    assert KINDS["ivf"].defaults(27_754, 384, {}) == {"nlist": 666, "nprobe": 83}
    assert KINDS["ivf"].defaults(1_300_000, 384, {}) == {"nlist": 4561, "nprobe": 570}
    assert KINDS["ivf"].defaults(1_300_000, 384, {"nlist": 80})["nprobe"] == 10
    assert KINDS["pq"].defaults(10, 384, {}) == {"parts": 48, "bits": 8}
    assert KINDS["pq"].defaults(10, 100, {})["parts"] == 10
    assert KINDS["pq"].defaults(10, 7, {})["parts"] == 1


def test_a_graph_over_vectors_of_very_different_lengths_is_refused() -> None:
    label_SD = clouds(100)
    label_SD[7] *= 30
    with pytest.raises(LabelIndexError, match=r"more than 10 times the median one .*normalise them, or take ivf"):
        build("hnsw", label_SD)


def test_kinds_that_learn_need_labels_the_others_may_begin_empty(tmp_path: Path) -> None:
    for kind in ("sq8", "pq", "ivf", "ivfpq"):
        with pytest.raises(LabelIndexError, match="there are 0 labels: take flat"):
            LabelIndex.build(np.zeros((0, 16)), kind=kind)
    for kind in ("flat", "fp16", "hnsw"):
        LabelIndex.build(np.zeros((0, 16)), kind=kind).save(tmp_path / kind)
        index = LabelIndex.load(tmp_path / kind)
        assert index.search(clouds(2), 2)[0].tolist() == [[-1, -1]] * 2
        index.add(clouds(1), [4])
        assert index.search(clouds(2), 2)[0].tolist() == [[4, -1]] * 2


def test_values_that_a_code_cannot_hold_are_refused() -> None:
    with pytest.raises(LabelIndexError, match="fp16 holds values up to 65504"):
        build("fp16", clouds(3) * 1e6)
    index = build("sq8", clouds(300))
    index.add(clouds(3, seed=8), [900, 901, 902])
    with pytest.raises(LabelIndexError, match=r"1 of 2 vectors \(first: row 1\) lie outside the range"):
        index.add(clouds(2, seed=8) * [[1], [3]], [903, 904])
    assert len(index) == 303


@pytest.mark.parametrize("kind", KINDS)
def test_scores_beyond_float32_are_refused(kind: str) -> None:
    index = build(kind, clouds(300) * (1e4 if kind == "fp16" else 1e14))
    with pytest.raises(SearchInputError, match="overflow"):
        index.search(clouds(3, seed=5) * 1e38, 5)


@pytest.mark.parametrize("kind", ["sq8", "pq", "ivf", "ivfpq", "hnsw"])
def test_values_beyond_what_an_approximate_kind_can_take_are_refused(kind: str) -> None:
    with pytest.raises(LabelIndexError, match=r"values beyond 1e\+15: normalise them, or take flat"):
        build(kind, clouds(300) * 1e20)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("ivf", lambda: faiss.IndexIVFFlat(faiss.IndexFlatL2(4), 4, 2, faiss.METRIC_INNER_PRODUCT)),
        ("ivf", lambda: faiss.IndexIVFFlat(faiss.IndexFlatIP(4), 4, 2)),
        ("hnsw", lambda: faiss.IndexIDMap2(faiss.IndexHNSWFlat(4, 8))),
        ("sq8", lambda: faiss.IndexIDMap2(faiss.IndexScalarQuantizer(4, faiss.ScalarQuantizer.QT_8bit))),
    ],
)
def test_an_l2_part_is_refused(kind: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = build(kind, clouds(60, width=4), **({"nlist": 2, "nprobe": 2} if kind == "ivf" else {}))
    index._index = make()
    index._index.train(clouds(60, width=4))
    index._index.add_with_ids(clouds(60, width=4), np.arange(60))
    index.save(tmp_path)
    with pytest.raises(LabelIndexError, match="was built for L2"):
        LabelIndex.load(tmp_path)


def test_another_kind_of_code_is_refused(tmp_path: Path) -> None:
    index = build("sq8", clouds(60))
    index.save(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "fp16"}))
    with pytest.raises(LabelIndexError, match="not the FAISS index with label ids of kind 'fp16'"):
        LabelIndex.load(tmp_path)


# ---- GPUs -----------------------------------------------------------------------------------------------------------


def test_without_a_gpu_the_search_stays_on_the_cpu() -> None:
    index = build("flat", clouds(30))
    assert index.to_gpu() is False
    assert found(index) == found(build("flat", clouds(30)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_copy_answers_follows_changes_and_is_not_saved(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Any] = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: copies.append(index) or faiss.clone_index(index))
    index, same = build(kind, clouds(300)), build(kind, clouds(300))
    assert index.to_gpu() is (kind in ("flat", "ivf"))
    assert found(index) == found(index) == found(same)
    assert len(copies) == index.to_gpu()
    for each in (index, same):
        each.remove([3])
    assert found(index) == found(same)
    assert len(copies) == 2 * index.to_gpu()
    index.save(tmp_path)
    assert found(LabelIndex.load(tmp_path)) == found(same)
