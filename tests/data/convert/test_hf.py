import datasets
import pytest
from datasets import ClassLabel, DatasetDict, Features, Value

from dexml.data import DataError
from dexml.data.convert import Options, prepare
from tests.data.convert.helpers import in_order, labels_of

HOSTILE = ["tab\there", 'quo"te', "a\u2028b", "\u202e\u05d0", "\U0001f600", "", "x" * (1 << 20)]


def test_string_lists_in_memory(tmp_path):
    data = datasets.Dataset.from_dict(
        {"text": HOSTILE, "labels": [["007", "NA"], ["a\nb"], [], None, ["z"], [""], ["z"]]}
    )
    folder = prepare(DatasetDict(train=data, test=data.select([0])), tmp_path / "d").path
    assert labels_of(folder) == ["007", "NA", "a b", "z"]
    assert in_order(folder, "trn") == [
        ("tab here", {"007", "NA"}),
        ('quo"te', {"a b"}),
        ("a b", set()),
        ("\u202e\u05d0", set()),
        ("\U0001f600", {"z"}),
        ("", set()),
        ("x" * (1 << 20), {"z"}),
    ]
    assert in_order(folder, "tst") == [("tab here", {"007", "NA"})]


@pytest.mark.parametrize("several", [True, False])
def test_class_labels_become_their_names_in_their_order(tmp_path, several):
    names = ClassLabel(names=["zebra", "ant", "never"])
    labels = [[1, 0], [1], []] if several else [0, 1, -1]
    features = Features({"text": Value("string"), "label": datasets.Sequence(names) if several else names})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": labels}, features=features)
    folder = prepare(DatasetDict(train=data, validation=data, test=data), tmp_path / "d").path
    assert labels_of(folder) == ["zebra", "ant", "never"]
    expected = [("a", {"zebra", "ant"}), ("b", {"ant"}), ("c", set())]
    if not several:
        expected[0] = ("a", {"zebra"})
    assert in_order(folder, "dev") == in_order(folder, "trn") == expected


def test_a_saved_data_set_with_named_columns(tmp_path):
    data = datasets.Dataset.from_dict(
        {"q": ["a", "b", "c"], "t": ["x|y", "y", "x"], "part": ["train", "train", "test"]}
    )
    data.save_to_disk(str(tmp_path / "saved"))
    options = Options(["q"], "t", "|", "part")
    folder = prepare(tmp_path / "saved", tmp_path / "d", options=options).path
    assert in_order(folder, "trn") == [("a", {"x", "y"}), ("b", {"y"})]
    assert in_order(folder, "tst") == [("c", {"x"})]
    with pytest.raises(DataError, match=r"which column is it\? the columns are 'q', 't', 'part'"):
        prepare(tmp_path / "saved", tmp_path / "e")


def test_labels_that_are_no_names_are_told_with_their_row(tmp_path):
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "labels": [[{"id": 1}], [{"id": 2}]]})
    with pytest.raises(DataError, match=r"data set \(trn\):1: \"{'id': 1}\" is a dict"):
        prepare(data, tmp_path / "d")


def test_splits_of_other_names_are_told(tmp_path):
    data = datasets.Dataset.from_dict({"text": ["a"], "labels": [["x"]]})
    with pytest.raises(DataError, match="none of the splits corpus is named train"):
        prepare(DatasetDict(corpus=data), tmp_path / "d")


def test_without_a_network_the_mend_is_told(tmp_path):
    with pytest.raises(DataError, match=r"^nobody/nothing: cannot be loaded from the Hub .*save_to_disk"):
        prepare("nobody/nothing", tmp_path / "d", "hf")
