import gzip
import json
from pathlib import Path

import pytest

from dexml.data import DataError, Dataset
from dexml.data.convert import Options, prepare
from tests.data.convert.helpers import in_order, labels_of

POINTS = {
    "trn": [
        {"uid": "p1", "title": "red fox", "content": "runs\nfar", "target_ind": [0, 2], "target_rel": [1.0, 0.5]},
        {"uid": "p2", "title": "blue boat", "content": "", "target_ind": []},
    ],
    "tst": [{"uid": "p3", "title": "fox\tboat", "target_ind": [1, 2], "target_rel": [1, 1]}],
}
LABELS = [{"uid": "l1", "title": "fox"}, {"uid": "l2", "title": "boat\u2028x"}, {"uid": "l3", "title": ""}]


def write_gz(path: Path, rows: list[dict]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()))


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "LF-Toy"
    folder.mkdir()
    for split, rows in POINTS.items():
        write_gz(folder / f"{split}.json.gz", rows)
    write_gz(folder / "lbl.json.gz", LABELS)
    (folder / "filter_labels_train.txt").write_text("1 0\n")
    (folder / "filter_labels_test.txt").write_text("0 2\n")
    return folder


def test_titles_contents_relevance_and_filters_of_the_repository(repository, tmp_path):
    folder = prepare(repository, tmp_path / "d").path
    data = Dataset.load(folder)
    assert labels_of(folder) == ["fox", "boat x", "l3"]
    assert list(data.trn.texts) == ["red fox runs far", "blue boat"]
    assert data.trn.relevance.toarray().tolist() == [[1, 0, 0.5], [0, 0, 0]]
    assert data.trn.filters.toarray().tolist() == [[0, 0, 0], [1, 0, 0]]
    assert in_order(folder, "tst") == [("fox boat", {"boat x"})]  # the filtered pair is no label


def test_a_file_that_is_there_unpacked_too_is_read_once(repository, tmp_path):
    (repository / "trn.json").write_bytes(gzip.decompress((repository / "trn.json.gz").read_bytes()))
    assert len(in_order(prepare(repository, tmp_path / "d").path, "trn")) == 2


def test_the_text_can_be_the_title_alone(repository, tmp_path):
    folder = prepare(repository, tmp_path / "d", options=Options(["title"])).path
    assert [text for text, _ in in_order(folder, "trn")] == ["red fox", "blue boat"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target_ind": None}, "no list under 'target_ind'"),
        ({"target_ind": [3]}, "label '3' is not among the 3 label texts"),
        ({"target_ind": [0], "target_rel": [1, 1]}, r"relevance .* has 2 numbers for 1 labels"),
        ({"target_ind": [0], "target_rel": [{}]}, "'{}' is a dict: give a text or a number"),
    ],
)
def test_a_broken_point_is_named(repository, tmp_path, change, reason):
    write_gz(repository / "trn.json.gz", [*POINTS["trn"], {"title": "x", **change}])
    with pytest.raises(DataError, match=rf"trn\.json\.gz:3: {reason}"):
        prepare(repository, tmp_path / "d")


def test_a_label_line_that_cannot_be_read_is_never_skipped(repository, tmp_path):
    (repository / "lbl.json.gz").write_bytes(gzip.compress(b'{"title": "fox"}\n{\n{"title": "x"}\n'))
    with pytest.raises(DataError, match=r"lbl\.json\.gz:2: not JSON"):
        prepare(repository, tmp_path / "d", on_error="skip")


def test_a_filter_line_that_is_no_pair_is_named(repository, tmp_path):
    (repository / "filter_labels_test.txt").write_text("0 1\n0 x\n")
    with pytest.raises(DataError, match=r"filter_labels_test\.txt:2: '0 x' is not a pair"):
        prepare(repository, tmp_path / "d")


# --- bag of words ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bags(tmp_path):
    folder = tmp_path / "Bags"
    folder.mkdir()
    (folder / "train.txt").write_text("3 4 3\n0,2 0:0.5 3:1.5\n 1:1\n2 2:1\n")
    (folder / "test.txt").write_text("1 4 3\n1 3:1 0:2\n")
    (tmp_path / "vocab.txt").write_text("red\nblue\nboat\nfox\n")
    return folder


def vocabulary(tmp_path: Path) -> Options:
    return Options(vocabulary=tmp_path / "vocab.txt")


def test_a_bag_of_words_becomes_its_words_by_weight(bags, tmp_path):
    (tmp_path / "labels.txt").write_text("animal\nvehicle\n\n")
    folder = prepare(bags, tmp_path / "d", options=vocabulary(tmp_path), labels=tmp_path / "labels.txt").path
    assert in_order(folder, "trn") == [("fox red", {"animal", "2"}), ("blue", set()), ("boat", {"2"})]
    assert in_order(folder, "tst") == [("red fox", {"vehicle"})]


def test_labels_of_a_bag_of_words_are_numbers_in_order(bags, tmp_path):
    assert labels_of(prepare(bags, tmp_path / "d", options=vocabulary(tmp_path)).path) == ["0", "1", "2"]


def test_a_bag_of_words_has_no_text_without_a_vocabulary(bags, tmp_path):
    with pytest.raises(DataError, match="a bag of words has no text: give --vocab FILE"):
        prepare(bags, tmp_path / "d")
    (tmp_path / "vocab.txt").write_text("red\n")
    with pytest.raises(DataError, match=r"the vocabulary has 1 words but test\.txt has 4 features"):
        prepare(bags, tmp_path / "d", options=vocabulary(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("2 4 3\n0 0:1\n1 9:1\n", r"train\.txt:3: '1 9:1' is not `l1,l2 f:v f:v` with features below 4"),
        ("2 4 3\n0 0:1\n1 -1:1\n", r"train\.txt:3: '1 -1:1' is not"),
        ("2 4 3\n0 0:1\n1 a b\n", r"train\.txt:3: '1 a b' is not"),
        ("2 4 3\n0 0:1\n3 0:1\n", r"train\.txt:3: label '3' is not among the 3"),
        ("9 4 3\n0 0:1\n", r"train\.txt: the header promises 9 points, 1 are there"),
    ],
)
def test_a_broken_bag_is_named(bags, tmp_path, content, reason):
    (bags / "train.txt").write_text(content)
    with pytest.raises(DataError, match=reason):
        prepare(bags, tmp_path / "d", options=vocabulary(tmp_path))


def test_a_file_of_another_kind_is_no_bag_of_words(bags, tmp_path):
    (bags / "test.txt").write_text("0 0:1\n")
    with pytest.raises(DataError, match=r"test\.txt:1: '0 0:1' is not the header"):
        prepare(bags, tmp_path / "d", options=vocabulary(tmp_path))
