import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from dexml.data import DataError, Dataset
from dexml.evaluation import inverse_propensity, propensity_constants
from tests.helpers.datasets import make_toy, real_data, write_dataset, write_lines

TRN = ["red fox", "blue boat", "red boat"]
TST = ["blue fox", "fox"]
LABELS = ["fox", "boat", "red", "blue"]
TRN_Y = [[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0]]
TST_Y = [[1, 0, 0, 1], [1, 0, 0, 0]]


@pytest.fixture
def toy(tmp_path):
    return write_dataset(tmp_path / "Toy", (TRN, TRN_Y), (TST, TST_Y), LABELS)


def replace_trn(toy: Path, matrix) -> None:
    sparse.save_npz(toy / "Y.trn.npz", sparse.csr_matrix(matrix))


def refused(toy: Path, pattern: str, **options) -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        Dataset.load(toy, **options)
    assert "\n" not in str(caught.value)


def test_a_sound_folder_loads(toy):
    data = Dataset.load(toy)
    assert (data.name, data.path, data.n_labels, data.dev) == ("Toy", toy, 4, None)
    assert list(data.label_texts) == LABELS
    assert list(data.trn.texts) == TRN
    assert data.trn.relevance.dtype == np.float32
    assert data.trn.relevance.toarray().tolist() == TRN_Y
    assert data.tst.relevance.toarray().tolist() == TST_Y
    assert data.trn.filters is None
    assert data.notices == ["Toy: 3 training points, 2 test points, 4 labels, 2.00 labels a training point"]


def test_only_the_splits_asked_for_are_needed(toy):
    (toy / "Y.trn.npz").unlink()
    data = Dataset.load(toy, splits=("tst",))
    assert len(data.tst) == 2
    with pytest.raises(DataError, match="split 'trn' was not loaded"):
        _ = data.trn
    refused(toy, "unknown split 'val'", splits=("val",))


def test_a_development_split_is_loaded_when_there(toy):
    write_lines(toy / "raw" / "dev_X.txt", ["boat"])
    refused(toy, r"lacks Y\.dev\.npz")
    sparse.save_npz(toy / "Y.dev.npz", sparse.csr_matrix([[0, 1.0, 0, 0]]))
    assert list(Dataset.load(toy).dev.texts) == ["boat"]


@pytest.mark.parametrize("kind", [sparse.coo_matrix, sparse.csc_matrix, sparse.csr_array, sparse.bsr_matrix])
@pytest.mark.parametrize("dtype", [np.float64, np.int64, bool])
def test_any_sparse_format_and_real_type_is_taken(toy, kind, dtype):
    sparse.save_npz(toy / "Y.trn.npz", kind(np.array(TRN_Y, dtype)))
    data = Dataset.load(toy)
    assert isinstance(data.trn.relevance, sparse.csr_matrix)
    assert data.trn.relevance.toarray().tolist() == TRN_Y


def test_columns_are_sorted_duplicates_summed_and_tiny_cells_dropped(toy):
    cells = (np.array([1, 0.5, 0.25, 1e-8, 1, 1]), np.array([3, 0, 0, 1, 2, 2]), np.array([0, 4, 5, 6]))
    replace_trn(toy, sparse.csr_matrix(cells, shape=(3, 4)))
    matrix = Dataset.load(toy).trn.relevance
    assert matrix.indices.tolist() == [0, 3, 2, 2]
    assert matrix.data.tolist() == [0.75, 1, 1, 1]


def test_a_missing_folder_says_what_the_layout_is(tmp_path):
    refused(tmp_path / "gone", r"gone: no such data folder.*raw/trn_X\.txt.*dexml prepare")


def test_every_missing_file_is_listed_at_once(toy):
    (toy / "Y.tst.npz").unlink()
    (toy / "raw" / "Y.txt").unlink()
    refused(toy, r"Toy lacks raw/Y\.txt, Y\.tst\.npz")


@pytest.mark.parametrize(
    ("texts", "hint"),
    [(TRN[:2], "is the last line missing"), ([*TRN, "x"], "is there an extra line"), (TRN[:1], "line i must be")],
)
def test_row_counts_that_differ_name_both_counts(toy, texts, hint):
    write_lines(toy / "raw" / "trn_X.txt", texts)
    refused(toy, rf"raw/trn_X\.txt has {len(texts)} lines but Y\.trn\.npz has 3 rows: {hint}")


def test_label_columns_beyond_the_label_file_are_refused(toy):
    write_lines(toy / "raw" / "Y.txt", LABELS[:3])
    refused(toy, r"raw/Y\.txt has 3 lines but Y\.trn\.npz has 4 label columns")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, -1e-12, 1e300])
def test_bad_relevance_names_row_and_column(toy, value):
    matrix = sparse.csr_matrix(np.array(TRN_Y, float))
    matrix[1, 3] = value
    replace_trn(toy, matrix)
    refused(toy, r"Y\.trn\.npz: relevance .* at row 1, column 3 .*1 such cells")


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "bit flip":
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle - 60 : middle] = bytes(60)
        path.write_bytes(data)
    elif how == "foreign":
        np.savez(path, a=np.ones(3))
    elif how == "text":
        path.write_text("hello")
    elif how == "pickled":
        path.write_bytes(pickle.dumps(sparse.csr_matrix(TRN_Y)))
    elif how == "objects":
        save_parts(path, data=np.array([{}, 1], dtype=object))
    elif how == "column beyond shape":
        save_parts(path, indices=np.array([0, 4]))
    elif how == "row pointer":
        save_parts(path, indptr=np.array([0, 5, 1, 2]))


def save_parts(path: Path, **changes) -> None:
    parts = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2, 2])} | changes
    np.savez(path, format=b"csr", shape=np.array([3, 4]), **parts)


@pytest.mark.parametrize(
    "how",
    ["truncated", "empty", "bit flip", "foreign", "text", "pickled", "objects", "column beyond shape", "row pointer"],
)
def test_a_damaged_or_foreign_matrix_is_refused_by_name(toy, how):
    damage(toy / "Y.trn.npz", how)
    with pytest.raises(DataError, match=r"Y\.trn\.npz: not a readable scipy sparse matrix"):
        Dataset.load(toy)


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.bsr_matrix])
def test_indices_beyond_the_shape_are_refused_in_every_format(toy, kind):
    matrix = kind(np.array(TRN_Y, float))
    matrix.indices[0] = 1000
    sparse.save_npz(toy / "Y.trn.npz", matrix)
    refused(toy, r"Y\.trn\.npz: not a readable")


def test_complex_relevance_is_refused(toy):
    replace_trn(toy, np.array(TRN_Y, complex))
    refused(toy, r"Y\.trn\.npz: values of type complex128")


def test_an_empty_label_text_is_refused_with_its_line(toy):
    write_lines(toy / "raw" / "Y.txt", ["fox", " \t", "red", ""])
    refused(toy, r"raw/Y\.txt:2: empty label text \(2 such lines\)")


def test_invalid_utf8_is_refused_with_its_line(toy):
    (toy / "raw" / "tst_X.txt").write_bytes(b"a\n\xe9\n")
    refused(toy, r"raw/tst_X\.txt:2: not valid UTF-8")


def test_no_labels_no_points_and_nothing_to_learn_are_refused(toy):
    replace_trn(toy, np.zeros((3, 4)))
    refused(toy, r"Y\.trn\.npz holds no relevant cell")
    (toy / "raw" / "trn_X.txt").write_bytes(b"")
    refused(toy, "there are no training points")
    (toy / "raw" / "Y.txt").write_bytes(b"")
    refused(toy, "there are no labels")


def test_what_is_odd_but_usable_is_counted_in_notices(tmp_path):
    trn_y = [[1, 0, 0], [0, 0, 0], [1, 0, 0], *[[0, 0, 0]] * 6]
    tst_y = [[0, 1, 0], [0, 0, 0]]
    texts = ["a", "b", "", "d", "e", "f", " ", "h", "i"]
    data = Dataset.load(write_dataset(tmp_path / "Odd", (texts, trn_y), (["x", "y"], tst_y), ["one", "two", "one"]))
    assert data.notices[1:] == [
        "7 training points have no label (few nets learn from them): trn_X.txt lines 2, 4, 5, 6, 7, ...",
        "2 training points have an empty text: trn_X.txt lines 3, 7",
        "1 test points have no label (they count as 0 in every metric): tst_X.txt lines 2",
        "2 labels have no training point, only their text: Y.txt lines 2, 3",
        "1 labels repeat the text of an earlier label, so a text encoder cannot tell them apart: Y.txt lines 3",
    ]
    assert len(data.trn) == 9


def test_filters_become_a_matrix_and_leave_the_truth(toy):
    (toy / "filter_labels_test.txt").write_text("0 0\n\n1\t3\n0 0\n")
    data = Dataset.load(toy)
    assert data.trn.filters is None
    assert data.tst.filters.dtype == bool
    assert data.tst.filters.toarray().astype(int).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert data.tst.relevance.toarray().tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]
    assert data.tst.relevance.dtype == np.float32
    assert "filter_labels_test.txt: 1 filtered pairs were labels in Y.tst.npz: removed" in data.notices


def test_training_filters_belong_to_the_training_split(toy):
    (toy / "filter_labels_train.txt").write_text("2 3")
    data = Dataset.load(toy)
    assert data.trn.filters.nonzero() == (np.array([2]), np.array([3]))
    assert data.trn.relevance.toarray().tolist() == TRN_Y


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_a_filter_file_without_pairs_filters_nothing(toy, content):
    (toy / "filter_labels_test.txt").write_text(content)
    assert Dataset.load(toy).tst.filters.nnz == 0


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("0 0\n\n0 4\n", r"filter_labels_test\.txt:3: pair 0 4 is out of range: points are 0\.\.1, labels 0\.\.3"),
        ("0 0\n2 0\n", r":2: pair 2 0 is out of range"),
        ("-1 0\n", r":1: pair -1 0 is out of range"),
        ("0 0\n0 x\n", r":2: '0 x' is not a pair"),
        ("0 0\n1\n", r":2: '1' is not a pair"),
        ("0 0 0\n1 1 1\n", r":1: '0 0 0' is not a pair"),
        ("0 1.5\n", r":1: '0 1\.5' is not a pair"),
        ("1\n", r":1: '1' is not a pair"),
        ("0 99999999999999999999\n", r":1: '0 9+' is not a pair"),
        ("# comment\n0 0\n", r":1: '# comment' is not a pair"),
    ],
)
def test_bad_filter_pairs_name_file_and_line(toy, content, pattern):
    (toy / "filter_labels_test.txt").write_text(content)
    refused(toy, pattern)


def test_validation_rows_are_drawn_once_and_reused(tmp_path):
    data = Dataset.load(make_toy(tmp_path / "Toy", n_trn=40))
    train, held = data.validation_rows(10, seed=1)
    assert held.dtype == train.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(40))
    assert (np.diff(held) > 0).all()
    assert (np.diff(train) > 0).all()
    assert np.array_equal(np.load(tmp_path / "Toy" / "val_inds_10.npy"), held)
    assert np.array_equal(data.validation_rows(10, seed=2)[1], held)
    assert [path.name for path in (tmp_path / "Toy").glob(".*")] == []


def test_the_same_seed_draws_the_same_rows_another_seed_others(tmp_path):
    draws = []
    for i, seed in enumerate((5, 5, 6)):
        draws.append(Dataset.load(make_toy(tmp_path / str(i))).validation_rows(20, seed)[1].tolist())
    assert draws[0] == draws[1] != draws[2]


def test_validation_rows_have_labels(tmp_path):
    relevance = np.zeros((20, 2))
    relevance[::2] = 1
    data = Dataset.load(write_dataset(tmp_path / "D", (["x"] * 20, relevance), (["x"], [[1, 0]]), ["a", "b"]))
    assert (data.validation_rows(9, seed=0)[1] % 2 == 0).all()
    with pytest.raises(DataError, match="num_val_points is 10 but only 10 training points"):
        data.validation_rows(10, seed=0)


def test_unsorted_rows_of_another_program_are_taken(toy):
    np.save(toy / "val_inds_2.npy", np.array([2, 0], np.int32))
    train, held = Dataset.load(toy).validation_rows(2, seed=0)
    assert (train.tolist(), held.tolist()) == ([1], [0, 2])


@pytest.mark.parametrize(
    "rows", [[0, 0], [0, 3], [-1, 0], [0], [[0, 1]], [0.0, 1.0], np.array([{}, {}], dtype=object), b"no array"]
)
def test_a_bad_file_of_validation_rows_is_refused_by_name(toy, rows):
    path = toy / "val_inds_2.npy"
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    else:
        np.save(path, np.array(rows), allow_pickle=True)
    with pytest.raises(DataError, match=r"val_inds_2\.npy: .*delete it to draw"):
        Dataset.load(toy).validation_rows(2, seed=0)


@pytest.mark.parametrize("n", [0, -1, 3, 4])
def test_validation_must_leave_training_points(toy, n):
    with pytest.raises(DataError, match=f"num_val_points is {n}: it must be between 1 and 2"):
        Dataset.load(toy).validation_rows(n, seed=0)


def test_eurlex_titles_load_as_described(tmp_path):
    folder = real_data("EURLEX57K-Titles", tmp_path)
    if folder is None:
        pytest.skip("EURLEX57K-Titles is not there: set DEXML_DATA to the folder that holds it or its archive")
    data = Dataset.load(folder)
    assert (len(data.trn), len(data.tst), data.n_labels) == (45_000, 6_000, 4_271)
    assert "163 labels have no training point" in data.notices[1]
    counts = np.bincount(data.trn.relevance.indices, minlength=data.n_labels)
    assert (data.trn.relevance.nnz, data.tst.relevance.nnz, counts.max()) == (228_322, 30_356, 3_645)
    unseen = counts[data.tst.relevance.indices] == 0
    assert (int(unseen.sum()), len(np.unique(data.tst.relevance.indices[unseen]))) == (96, 85)
    weights = inverse_propensity(counts, len(data.trn), *propensity_constants("EURLEX57K")[:2])
    assert weights[counts.argmax()] == pytest.approx(1.176706, abs=1e-6)
    assert weights[counts == 0][0] == pytest.approx(13.865705, abs=1e-6)
