import pytest

from dexml.data import DataError
from dexml.data.convert import Options, prepare
from tests.data.convert.helpers import in_order, labels_of, stored


def test_libmultilabel_files_with_ids(tmp_path):
    data = tmp_path / "rcv1"
    data.mkdir()
    (data / "train.txt").write_text('1\tE11 C24\tsay "x\ty"\n2\t\tno label\n', encoding="utf-8")
    (data / "valid.txt").write_text("3\tC24\tv\n")
    (data / "test.txt").write_text("4\tnew\tt\r\n")
    folder = prepare(data, tmp_path / "d", "libmultilabel").path
    assert in_order(folder, "trn") == [('say "x y"', {"E11", "C24"}), ("no label", set())]
    assert in_order(folder, "dev") == [("v", {"C24"})]
    assert in_order(folder, "tst") == [("t", {"new"})]
    assert labels_of(folder) == ["C24", "E11", "new"]


def test_libmultilabel_files_without_ids_and_with_label_texts(tmp_path):
    (tmp_path / "a.txt").write_text("x y\tone\ny\ttwo\ttabs\n")
    (tmp_path / "l.tsv").write_text("y\tyellow\nx\tpurple\n")
    folder = prepare(tmp_path / "a.txt", tmp_path / "d", "libmultilabel", labels=tmp_path / "l.tsv", test=None).path
    assert stored(folder) == [
        ("one", {"purple", "yellow"}),
        ("two tabs", {"yellow"}),
    ]


def test_pecos_text_to_text(tmp_path):
    data = tmp_path / "pecos"
    data.mkdir()
    (data / "train.txt").write_text("0,2\tred fox\n1\tblue boat\n")
    (data / "test.txt").write_text("2\tfox\n")
    (data / "output-items.txt").write_text("fox\nboat\nred\n")
    folder = prepare(data, tmp_path / "d", "pecos").path
    assert labels_of(folder) == ["fox", "boat", "red"]
    assert in_order(folder, "trn") == [("red fox", {"fox", "red"}), ("blue boat", {"boat"})]
    made = prepare(data / "train.txt", tmp_path / "e", "pecos", test=data / "test.txt")
    assert in_order(made.path, "tst") == [("fox", {"red"})]


@pytest.mark.parametrize(
    ("form", "content", "reason"),
    [
        ("libmultilabel", "1\tx\ta\n2 x b\n", r"train\.txt:2: 1 fields between tabs: give labels<TAB>text"),
        ("libmultilabel", "no tabs\n", r"train\.txt:1: 1 fields"),
        ("pecos", "0\ta\n7\tb\n", r"train\.txt:2: label '7' is not among the 1 label texts"),
    ],
)
def test_a_broken_line_is_named_and_can_be_skipped(tmp_path, form, content, reason):
    data = tmp_path / "in"
    data.mkdir()
    (data / "train.txt").write_text(content)
    (data / "output-items.txt").write_text("fox\n")
    with pytest.raises(DataError, match=reason):
        prepare(data, tmp_path / "d", form)
    (data / "test.txt").write_text("0\tt\n")
    if content.startswith(("0", "1")):
        assert len(in_order(prepare(data, tmp_path / "d", form, on_error="skip").path, "trn")) == 1


def test_another_delimiter(tmp_path):
    (tmp_path / "a.txt").write_text("a b|c\tone\na b\ttwo\n")
    folder = prepare(tmp_path / "a.txt", tmp_path / "d", "libmultilabel", options=Options(delimiter="|")).path
    assert labels_of(folder) == ["a b", "c"]


def test_a_folder_without_a_training_file_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"has no train\.txt"):
        prepare(tmp_path / "in", tmp_path / "d", "pecos")
