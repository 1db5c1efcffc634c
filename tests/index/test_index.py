import json
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from dexml.data.files import sha256
from dexml.index import LabelIndex, LabelIndexError, SearchInputError, exact_topk, folder


def vectors(rows: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).integers(-2, 3, (rows, 4)).astype(np.float32)


def search(index: LabelIndex, k: int = 6) -> list[list[int]]:
    ids: list[list[int]] = index.search(vectors(9, seed=7), k)[0].tolist()
    return ids


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    LabelIndex.build(vectors(20), ids=np.arange(20) * 3, meta={"model": "abc"}).save(tmp_path / "index")
    return tmp_path / "index"


def rewrite(target: Path, **changes: object) -> None:
    path = target / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def data_file(target: Path) -> Path:
    (path,) = target.glob("*.faiss")
    return path


def replace_data(target: Path, index: faiss.Index) -> None:
    faiss.write_index(index, str(data_file(target)))
    vouch(target)


def vouch(target: Path) -> None:
    """Let the description fit the data file as it is now."""
    rewrite(target, bytes=data_file(target).stat().st_size, sha256=sha256(data_file(target)))


def test_search_is_the_exact_search() -> None:
    index, (ids, scores) = LabelIndex.build(vectors(80)), exact_topk(vectors(9, seed=7), vectors(80), 6)
    got_ids, got_scores = index.search(vectors(9, seed=7), 6)
    assert np.array_equal(got_ids, ids) and np.array_equal(got_scores, scores)
    assert (len(index), index.width, index.kind, index.meta) == (80, 4, "flat", {})


def test_ties_go_to_the_smaller_label_id_not_the_earlier_row() -> None:
    ids = np.arange(100)[::-1] + 5
    got, _ = LabelIndex.build(np.ones((100, 3)), ids).search(np.ones((1, 3)), 4)
    assert got.tolist() == [[5, 6, 7, 8]]


def test_ids_stay_after_add_and_remove() -> None:
    index = LabelIndex.build(vectors(30))
    index.remove([1, 17])
    index.add(vectors(3, seed=5), [40, 1, 33])
    order = [i for i in range(30) if i not in (1, 17)] + [40, 1, 33]
    kept = np.concatenate([np.delete(vectors(30), [1, 17], axis=0), vectors(3, seed=5)])
    same = LabelIndex.build(kept, order)
    assert index.ids.tolist() == sorted(order) and len(index) == 31
    assert search(index, 31) == search(same, 31)


def test_a_round_trip_keeps_everything(saved: Path) -> None:
    index = LabelIndex.load(saved)
    assert (len(index), index.width, index.kind, index.meta) == (20, 4, "flat", {"model": "abc"})
    assert search(index) == search(LabelIndex.build(vectors(20), ids=np.arange(20) * 3))
    index.add(vectors(1), [1])
    index.remove([0])
    assert index.ids.tolist() == [1] + list(range(3, 60, 3))


def test_saving_again_replaces_and_leaves_no_old_files(saved: Path) -> None:
    (saved / "vectors-mine.faiss").write_text("not ours")
    LabelIndex.build(vectors(3)).save(saved)
    assert len(LabelIndex.load(saved)) == 3
    assert {path.name for path in saved.iterdir()} == {"index.json", "vectors-000002.faiss", "vectors-mine.faiss"}


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_killed_save_leaves_the_old_index(saved: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, replace = [], Path.replace

    def failing(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        LabelIndex.build(vectors(3)).save(saved)
    monkeypatch.undo()
    assert len(LabelIndex.load(saved)) == 20
    LabelIndex.build(vectors(4)).save(saved)
    assert len(LabelIndex.load(saved)) == 4 and len(list(saved.iterdir())) == 2


def test_a_full_disk_is_told_and_leaves_the_old_index(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(index: faiss.Index, name: str) -> None:
        raise RuntimeError("write error")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(LabelIndexError, match=r"vectors-000002\.faiss cannot be written: is the disk full"):
        LabelIndex.build(vectors(3)).save(saved)
    assert len(LabelIndex.load(saved)) == 20 and len(list(saved.iterdir())) == 2


def test_an_empty_index_can_be_saved_and_filled(tmp_path: Path) -> None:
    LabelIndex.build(np.zeros((0, 4))).save(tmp_path)
    index = LabelIndex.load(tmp_path)
    assert search(index, 2) == [[-1, -1]] * 9
    index.add(vectors(1), [8])
    assert search(index, 2) == [[8, -1]] * 9


def test_an_l2_index_is_refused(saved: Path) -> None:
    other = faiss.IndexIDMap2(faiss.IndexFlatL2(4))
    other.add_with_ids(vectors(20), np.arange(20) * 3)
    replace_data(saved, other)
    with pytest.raises(LabelIndexError, match="built for L2"):
        LabelIndex.load(saved)


def test_other_faiss_indexes_are_refused(saved: Path) -> None:
    plain = faiss.IndexFlatIP(4)
    plain.add(vectors(20))
    replace_data(saved, plain)
    with pytest.raises(LabelIndexError, match="is IndexFlatIP, not the FAISS index with label ids of kind 'flat'"):
        LabelIndex.load(saved)
    replace_data(saved, faiss.IndexIDMap2(faiss.IndexHNSWFlat(4, 8, faiss.METRIC_INNER_PRODUCT)))
    with pytest.raises(LabelIndexError, match="IndexFlatIP in IndexHNSWFlat in IndexIDMap2"):
        LabelIndex.load(saved)


@pytest.mark.parametrize("kept", [0, 3, 60, -1])
def test_a_truncated_file_is_refused(saved: Path, kept: int) -> None:
    data_file(saved).write_bytes(data_file(saved).read_bytes()[:kept])
    with pytest.raises(LabelIndexError, match="cut short"):
        LabelIndex.load(saved)
    vouch(saved)
    with pytest.raises(LabelIndexError, match="not a FAISS index"):
        LabelIndex.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 19}, "count is 20, index.json says 19"),
        ({"width": 5}, "width is 4, index.json says 5"),
        ({"metric": "l2"}, "metric is 'inner_product', index.json says 'l2'"),
        ({"ids_sha256": "0"}, "ids_sha256"),
        ({"kind": "hnsw"}, "not the FAISS index with label ids of kind 'hnsw'"),
        ({"kind": "tree"}, "kind 'tree' .*available: flat, "),
        ({"parameters": {"nlist": 3}}, "parameters is {}, index.json says {'nlist': 3}"),
        ({"sha256": "0"}, "not the file that index.json was written for"),
        ({"format": "other"}, "does not describe a label index"),
        ({"version": 99}, "version 99"),
        ({"file": "../x.faiss"}, "plain name"),
        ({"file": "gone.faiss"}, "gone.faiss is missing"),
        ({"meta": None}, "'meta'"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved: Path, changes: dict[str, object], message: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(LabelIndexError, match=message):
        LabelIndex.load(saved)


def test_a_folder_without_or_with_a_broken_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelIndexError, match=r"index\.json is missing"):
        LabelIndex.load(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(LabelIndexError, match="not JSON"):
        LabelIndex.load(tmp_path)


def test_other_kinds_list_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'tree' .*available: flat, fp16, sq8, pq, ivf, ivfpq, hnsw"):
        LabelIndex.build(vectors(2), kind="tree")


def test_folders_of_version_1_are_read(saved: Path) -> None:
    new = json.loads((saved / "index.json").read_text())
    old = {key: value for key, value in new.items() if key not in ("sha256", "parameters")}
    (saved / "index.json").write_text(json.dumps(old | {"version": 1}))
    index = LabelIndex.load(saved)
    assert (len(index), index.kind, index.meta, index.parameters) == (20, "flat", {"model": "abc"}, {})
    index.save(saved)
    assert json.loads((saved / "index.json").read_text()) == new | {"file": "vectors-000002.faiss"}


def test_a_data_file_of_another_index_with_the_same_ids_is_refused(saved: Path, tmp_path: Path) -> None:
    LabelIndex.build(vectors(20, seed=1), ids=np.arange(20) * 3).save(tmp_path / "other")
    data_file(saved).write_bytes(data_file(tmp_path / "other").read_bytes())
    with pytest.raises(LabelIndexError, match="not the file that"):
        LabelIndex.load(saved)


def test_an_index_that_is_replaced_while_it_is_read_is_read_again(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, saves = folder.sha256, []

    def while_another_saves(path: Path) -> str:
        if not saves:
            saves.append(path)
            LabelIndex.build(vectors(3)).save(saved)
        return read(path)

    monkeypatch.setattr(folder, "sha256", while_another_saves)
    assert len(LabelIndex.load(saved)) == 3


def test_bad_ids_change_nothing() -> None:
    index = LabelIndex.build(vectors(5))
    for ids, message in (
        ([7, 7], "given twice"),
        ([3, 9], r"in the index already \(3\)"),
        ([-1, 9], "negative"),
        ([9], "2 integers"),
        ([8.0, 9.0], "2 integers"),
    ):
        with pytest.raises(LabelIndexError, match=message):
            index.add(vectors(2), ids)
    with pytest.raises(LabelIndexError, match=r"not in the index \(9\): nothing was removed"):
        index.remove([1, 9])
    with pytest.raises(LabelIndexError, match="width 3"):
        index.add(np.zeros((1, 3)), [9])
    with pytest.raises(SearchInputError, match="embeddings row 0"):
        index.add(np.full((1, 4), np.nan), [9])
    with pytest.raises(LabelIndexError, match="given twice"):
        LabelIndex.build(vectors(2), [1, 1])
    assert index.ids.tolist() == [0, 1, 2, 3, 4] == sorted(search(index, 5)[0])


def test_meta_must_survive_json() -> None:
    for meta in ({"a": object()}, {"a": (1, 2)}, {1: "a"}, {"a": float("nan")}):
        with pytest.raises(LabelIndexError, match="meta"):
            LabelIndex.build(vectors(2), meta=meta)  # type: ignore[arg-type]


def test_importing_the_package_does_not_import_faiss_or_torch() -> None:
    code = "import sys, dexml.index, dexml.evaluation; print([m for m in ('faiss', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
