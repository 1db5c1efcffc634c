import numpy as np
import pytest
from scipy import sparse

from dexml.data import DataError, Dataset
from dexml.data.convert import detect, prepare
from tests.data.convert.helpers import in_order, labels_of
from tests.helpers.datasets import write_dataset, write_lines

TRN, TST, LABELS = ["red fox", "blue boat", ""], ["fox"], ["fox", "boat", "red"]
TRN_Y, TST_Y = [[1, 0, 0.5], [0, 1, 0], [0, 0, 0]], [[1, 0, 0]]


@pytest.mark.parametrize(
    "names",
    [("train_raw_texts.txt", "test_raw_texts.txt"), ("train_texts.txt", "test_texts.txt")],
    ids=["raw", "plain"],
)
def test_attentionxml_and_lightxml_folders(tmp_path, names):
    data = tmp_path / "in"
    write_lines(data / names[0], TRN)
    write_lines(data / names[1], TST)
    write_lines(data / "train_labels.txt", ["fox_1 red", "boat", ""])
    write_lines(data / "test_labels.txt", ["fox_1"])
    write_lines(data / "train.txt", ["3 9 3", "0 1:1"])  # their bag of words is beside it
    assert detect(data) == "folder"
    folder = prepare(data, tmp_path / "d").path
    assert in_order(folder, "trn") == [("red fox", {"fox_1", "red"}), ("blue boat", {"boat"}), ("", set())]
    assert in_order(folder, "tst") == [("fox", {"fox_1"})]
    assert labels_of(folder) == ["boat", "fox_1", "red"]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [("train_raw_texts.txt", "label_map.txt"), ("X.trn.txt", "output-items.txt")],
    ids=["X-Transformer", "XR-Transformer"],
)
def test_folders_with_matrices(tmp_path, texts, labels):
    data = tmp_path / "in"
    write_lines(data / texts, TRN)
    write_lines(data / texts.replace("train", "test").replace("trn", "tst"), TST)
    write_lines(data / labels, LABELS)
    for split, matrix in (("trn", TRN_Y), ("tst", TST_Y)):
        sparse.save_npz(data / f"Y.{split}.npz", sparse.csr_matrix(matrix))
    sparse.save_npz(data / "X.trn.npz", sparse.eye(3))
    folder = prepare(data, tmp_path / "d").path
    loaded = Dataset.load(folder)
    assert labels_of(folder) == LABELS
    assert list(loaded.trn.texts) == TRN
    assert loaded.trn.relevance.toarray().tolist() == TRN_Y


def test_ngame_folders_with_sparse_text(tmp_path):
    data = tmp_path / "in"
    write_lines(data / "raw" / "trn_X.txt", TRN)
    write_lines(data / "raw" / "tst_X.txt", TST)
    write_lines(data / "raw" / "Y.txt", LABELS)
    write_lines(data / "trn_X_Y.txt", ["3 3", "0:1.00000 2:0.5", "1:1", ""])
    write_lines(data / "tst_X_Y.txt", ["1 3", "0:1"])
    write_lines(data / "filter_labels_test.txt", ["0 2"])
    loaded = Dataset.load(prepare(data, tmp_path / "d").path)
    assert loaded.trn.relevance.toarray().tolist() == TRN_Y
    assert loaded.tst.filters.toarray().tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["3"], r"trn_X_Y\.txt:1: the header is not `rows columns`"),
        (["3 3", "0:1", "1 2"], r"trn_X_Y\.txt:3: '1 2' is not `column:value"),
        (["3 3", "0:1 3:1"], r"trn_X_Y\.txt:2: columns are 0\.\.2, found 0\.\.3"),
        (["3 3", "0:1"], r"trn_X_Y\.txt: the header promises 3 rows, 1 are there"),
        (["1 3", "0:1"], r"trn_X\.txt has 3 lines but trn_X_Y\.txt has 1 rows"),
    ],
)
def test_broken_sparse_text_is_named(tmp_path, lines, reason):
    data = write_dataset(tmp_path / "in", (TRN, TRN_Y), (TST, TST_Y), LABELS)
    (data / "Y.trn.npz").unlink()
    write_lines(data / "trn_X_Y.txt", lines)
    with pytest.raises(DataError, match=reason):
        prepare(data, tmp_path / "d")


def test_dexmls_own_folder_comes_out_as_it_went_in(tmp_path):
    data = write_dataset(tmp_path / "in", (TRN, TRN_Y), (TST, TST_Y), LABELS)
    write_lines(data / "raw" / "dev_X.txt", ["boat"])
    sparse.save_npz(data / "Y.dev.npz", sparse.csr_matrix([[0, 1.0, 0]]))
    write_lines(data / "filter_labels_train.txt", ["2 1", "0 1"])
    before, after = Dataset.load(data), Dataset.load(prepare(data, tmp_path / "d").path)
    assert list(before.label_texts) == list(after.label_texts)
    for split in ("trn", "tst", "dev"):
        one, two = before.splits[split], after.splits[split]
        assert list(one.texts) == list(two.texts)
        assert np.array_equal(one.relevance.toarray(), two.relevance.toarray())
        assert (one.filters is None) == (two.filters is None)
    assert np.array_equal(before.trn.filters.toarray(), after.trn.filters.toarray())


def test_files_of_different_lengths_are_told_with_both(tmp_path):
    write_lines(tmp_path / "in" / "train_texts.txt", ["a", "b"])
    write_lines(tmp_path / "in" / "train_labels.txt", ["x"])
    with pytest.raises(DataError, match=r"train_texts\.txt has 2 lines but train_labels\.txt has 1"):
        prepare(tmp_path / "in", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_matrix_without_label_texts_is_told(tmp_path):
    data = write_dataset(tmp_path / "in", (TRN, TRN_Y), (TST, TST_Y), LABELS)
    (data / "raw" / "Y.txt").unlink()
    with pytest.raises(DataError, match=r"columns of a matrix need label texts: there must be .*raw/Y\.txt"):
        prepare(data, tmp_path / "d")


def test_a_folder_without_training_texts_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"there must be one of raw/trn_X\.txt"):
        prepare(tmp_path / "in", tmp_path / "d", "folder")
