import json

import numpy as np
import pytest
from scipy import sparse

from dexml.data import DataError, Dataset, formats
from dexml.data.formats import prepare_iconclass


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("iconclass")
    return prepare_iconclass(tmp_path_factory.mktemp("root"))


def test_iconclass_has_the_published_counts(built):
    data = Dataset.load(built)
    assert (len(data.trn), len(data.tst), data.n_labels) == (28_749, 7_188, 14_151)
    cells = data.trn.relevance.nnz + data.tst.relevance.nnz
    assert round(cells / 35_937, 2) == 2.32
    assert (np.bincount(data.trn.relevance.indices, minlength=14_151) == 0).sum() == 1_720
    stats = json.loads((built / "stats.json").read_text())
    assert (stats["notations_without_keywords"], stats["texts_merged"]) == (6_601, 1_001)
    assert stats["labels_without_train_point"] == 1_720
    assert (round(stats["avg_words_per_text"]), stats["avg_words_per_label_text"]) == (10, 1.4)


def test_iconclass_points_carry_their_own_keywords(built):
    data = Dataset.load(built)
    points = [(split, row) for split in data.splits.values() for row in range(len(split))]
    keywords = {split.texts[row]: _labels(data, split, row) for split, row in points}
    assert keywords["Abstract, Non-representational Art"] == ["abstract art", "art", "non-representational art"]
    assert keywords["Religion and Magic"] == ["supernatural"]


def _labels(data, split, row):
    matrix = split.relevance
    return data.label_texts.read(matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]])


def test_iconclass_is_the_same_every_time(built, tmp_path):
    again = prepare_iconclass(tmp_path)
    for name in ("raw/trn_X.txt", "raw/tst_X.txt", "raw/Y.txt", "stats.json"):
        assert (again / name).read_bytes() == (built / name).read_bytes()
    assert (sparse.load_npz(again / "Y.trn.npz") != sparse.load_npz(built / "Y.trn.npz")).nnz == 0


def test_a_complete_folder_is_left_alone(built, monkeypatch):
    monkeypatch.setattr(formats, "_iconclass_points", lambda: pytest.fail("built again"))
    assert prepare_iconclass(built.parent) == built


def test_an_incomplete_folder_is_an_error_not_overwritten(tmp_path):
    (tmp_path / "Iconclass-KW-en" / "raw").mkdir(parents=True)
    with pytest.raises(DataError, match=r"lacks raw/trn_X\.txt.*remove the folder"):
        prepare_iconclass(tmp_path)


def test_a_build_cut_off_leaves_no_folder_and_the_next_one_succeeds(tmp_path, monkeypatch):
    points = [(f"text {i}", [f"label {i % 3}"]) for i in range(10)]
    monkeypatch.setattr(formats, "_iconclass_points", lambda: (list(points), {}))
    with monkeypatch.context() as patch:
        patch.setattr(formats, "_stats", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            prepare_iconclass(tmp_path)
    assert not (tmp_path / "Iconclass-KW-en").exists()
    data = Dataset.load(prepare_iconclass(tmp_path))
    assert (len(data.trn), len(data.tst), data.n_labels) == (8, 2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["Iconclass-KW-en"]
