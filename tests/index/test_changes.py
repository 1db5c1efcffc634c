"""Labels added and removed, round after round, against an index built from what is left."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from dexml.index import KINDS, LabelIndex, exact_topk, recall_at
from tests.index.clouds import LEAST, Array, build, clouds, found


def ten_rounds(kind: str, folder: Path) -> tuple[LabelIndex, dict[int, Array], set[int]]:
    """The index, the label vectors it should hold, and the ids that are gone."""
    rng = np.random.default_rng(4)
    index, held = build(kind, clouds(600)), dict(enumerate(clouds(600)))
    gone: set[int] = set()
    for turn in range(10):
        out = rng.choice(sorted(held), 40, replace=False)
        index.remove(out)
        for label in out.tolist():
            held.pop(label)
        again = out[:10]  # ids that come back with other vectors
        new = np.concatenate([again, 600 + turn * 30 + np.arange(30)])
        rows = clouds(40, seed=100 + turn)
        index.add(rows, new)
        held |= dict(zip(new.tolist(), rows, strict=True))
        gone = (gone | set(out.tolist())) - set(new.tolist())
        if turn % 3 == 0:
            index.save(folder)
            index = LabelIndex.load(folder)
    return index, held, gone


def table(held: dict[int, Array]) -> tuple[Array, list[int]]:
    ids = sorted(held)
    return np.stack([held[i] for i in ids]), ids


@pytest.mark.parametrize("kind", KINDS)
def test_ten_rounds_leave_exactly_the_labels_that_should_be_there(kind: str, tmp_path: Path) -> None:
    index, held, gone = ten_rounds(kind, tmp_path)
    label_SD, ids = table(held)
    assert index.ids.tolist() == ids and len(index) == len(ids) == 600
    assert np.linalg.norm(index.vectors() - label_SD, axis=1).max() < (1e-12 if KINDS[kind].lossless else 0.7)
    shown = set(np.unique(index.search(clouds(100, seed=5), 50)[0]).tolist())
    assert not shown & gone and shown <= {-1, *ids}
    itself = index.search(label_SD, 1)[0][:, 0]
    assert (itself == ids).mean() >= (0.99 if KINDS[kind].lossless else LEAST[kind])


@pytest.mark.parametrize("kind", ["flat", "fp16"])
def test_ten_rounds_give_the_results_of_an_index_built_anew(kind: str, tmp_path: Path) -> None:
    index, held, _ = ten_rounds(kind, tmp_path)
    assert found(index, 50) == found(build(kind, *table(held)), 50)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hnsw"])
def test_ten_rounds_equal_filling_what_was_learned_at_first_with_the_final_labels(kind: str, tmp_path: Path) -> None:
    index, held, _ = ten_rounds(kind, tmp_path)
    twin = build(kind, clouds(600))
    twin.remove(twin.ids)
    assert len(twin) == 0 and found(twin, 2)[0] == [[-1, -1]] * 40
    twin.add(*table(held))
    assert found(index, 50) == found(twin, 50)
    if kind in ("ivf", "ivfpq"):
        assert lists(index) == lists(twin)


def lists(index: LabelIndex) -> list[list[int]]:
    parts = index._index.invlists
    return [sorted(faiss.rev_swig_ptr(parts.get_ids(i), parts.list_size(i)).tolist()) for i in range(parts.nlist)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("flat", "fp16")])
def test_ten_rounds_keep_the_recall_of_an_index_built_anew(kind: str, tmp_path: Path) -> None:
    index, held, _ = ten_rounds(kind, tmp_path)
    (label_SD, ids), query_ND = table(held), clouds(100, seed=5)
    exact = np.array(ids)[exact_topk(query_ND, label_SD, 10)[0]]
    kept, anew = (recall_at(one.search(query_ND, 10)[0], exact, 10) for one in (index, build(kind, label_SD, ids)))
    assert kept >= anew - 0.03


def test_removed_labels_leave_the_graph_when_they_are_more_than_a_quarter() -> None:
    index = build("hnsw", clouds(100))
    index.remove(np.arange(25))
    assert (len(index), index._index.ntotal) == (75, 100)
    index.remove([25])
    assert (len(index), index._index.ntotal) == (74, 74)
    assert index.parameters == build("hnsw", clouds(100)).parameters
    assert found(index, 20) == found(build("hnsw", clouds(100)[26:], np.arange(26, 100)), 20)


def test_a_graph_with_removed_labels_still_fills_every_place() -> None:
    index = build("hnsw", clouds(400), efSearch=1)
    index.remove(np.arange(0, 400, 5))
    ids, _ = index.search(clouds(20, seed=5), 100)
    assert (ids >= 0).all() and not (ids % 5 == 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_can_be_removed_and_filled_again(kind: str, tmp_path: Path) -> None:
    index = build(kind, clouds(300))
    index.remove(index.ids[::-1])
    assert len(index) == 0 and index.vectors().shape == (0, 16)
    assert found(index, 3) == ([[-1] * 3] * 40, [[-np.inf] * 3] * 40)
    index.save(tmp_path)
    index = LabelIndex.load(tmp_path)
    index.add(clouds(2), [7, 5])
    assert np.sort(index.search(clouds(3, seed=5), 3)[0], axis=1).tolist() == [[-1, 5, 7]] * 3
