import errno
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings

from dexml.data import DataError, Dataset
from dexml.data.convert import Fault, LabelText, Record, Source, Split, write_folder
from dexml.data.convert.records import fold
from tests.data.convert.helpers import expected, in_order, labels_of, records, stored, texts

TWO = [Record("a", ["x"]), Record("b", ["y"], "tst")]


def source(*items, **facts) -> Source:
    return Source(iter(items), **facts)


@given(texts)
def test_folding_changes_white_space_only_and_gives_one_line(text):
    line = fold(text)
    assert line.splitlines() in ([], [line])
    assert "\t" not in line
    assert line == line.strip() == fold(line)

    def ink(text):
        return [c for c in text.strip(" \ufeff") if not c.isspace()]

    assert ink(line) == ink(text) or "\ufeff" in text
    assert len(line) <= len(text)


@settings(max_examples=40)
@example([("x" * (1 << 20), ["a"]), ("", ["a\u2028b"])])
@given(records)
def test_every_text_and_label_comes_through(points):
    if not any(labels for _, labels in expected(points)):
        points = [("one", ["label"]), *points]
    with tempfile.TemporaryDirectory() as root:
        made = [Record(text, labels, split) for text, labels in points for split in ("trn", "tst")]
        folder = write_folder(source(*made), Path(root) / "d").path
        for split in ("trn", "tst"):
            assert stored(folder, (split,)) == expected(points)
        names = sorted({name for _, labels in expected(points) for name in labels})
        assert labels_of(folder) == names


def test_labels_are_sorted_whatever_their_order_and_kept_as_text(tmp_path):
    made = [Record("a", ["NA", "10"]), Record("b", ["9", "007"]), Record("c", ["7"], "tst")]
    forwards = write_folder(source(*made), tmp_path / "f").path
    backwards = write_folder(source(*made[::-1]), tmp_path / "b").path
    assert labels_of(forwards) == labels_of(backwards) == ["007", "10", "7", "9", "NA"]
    assert in_order(forwards, "trn") == [("a", {"NA", "10"}), ("b", {"9", "007"})]


def test_label_texts_give_order_and_text_and_their_ids_are_kept(tmp_path):
    names = iter([LabelText("z9", "zebra"), LabelText("a1", ""), LabelText("q", "quagga")])
    made = [Record("a", ["a1", "new"]), Record("b", ["z9", "extra"], "tst")]
    folder = write_folder(source(*made, label_texts=names), tmp_path / "d").path
    assert labels_of(folder) == ["zebra", "a1", "quagga", "extra", "new"]
    assert (folder / "raw" / "Y.ids.txt").read_text().split() == ["z9", "a1", "q", "extra", "new"]
    assert in_order(folder, "trn") == [("a", {"a1", "new"})]


def test_relevance_is_kept_repeats_take_the_largest_and_zeros_are_no_labels(tmp_path):
    made = [Record("a", ["x", "y", "x", "z"], relevance=[0.25, 2, 0.5, 0]), Record("b", ["z"], "tst")]
    trn = Dataset.load(write_folder(source(*made), tmp_path / "d").path).trn
    assert trn.relevance.toarray().tolist() == [[0.5, 2, 0]]


def test_filters_follow_their_points_and_labels(tmp_path):
    made = [Record("bad \ud800", ["x"]), Record("a", ["b"], filtered=["a", "c", ""]), Record("t", ["a", "c"], "tst")]
    folder = write_folder(source(*made), tmp_path / "d", on_error="skip").path
    assert (folder / "filter_labels_train.txt").read_text() == "0 0\n0 2\n"
    assert not (folder / "filter_labels_test.txt").exists()


def test_a_record_that_cannot_be_used_stops_and_leaves_nothing(tmp_path):
    for bad, reason in [
        (Fault("f.csv:7", "no tab"), r"f\.csv:7: no tab \(or .*--on-error skip\)"),
        (Record("\udcff", ["x"], where="f.csv:7"), r"f\.csv:7: not valid UTF-8 \(byte 0xff\): convert"),
        (Record("a", ["\ud83d"], where="f.csv:7"), r"f\.csv:7: character \\ud83d is half"),
    ]:
        with pytest.raises(DataError, match=reason):
            write_folder(source(*TWO, bad), tmp_path / "d")
        assert list(tmp_path.iterdir()) == []


def test_skipped_records_are_counted_and_the_first_places_told(tmp_path):
    faults = [Fault(f"f:{i}", "bad") for i in range(1, 8)]
    made = write_folder(source(*TWO, *faults), tmp_path / "d", on_error="skip")
    assert made.notices[:7] == ["left out 7 records:", *(f"  f:{i}: bad" for i in range(1, 6)), "  ..."]
    assert stored(made.path) == [("a", {"x"}), ("b", {"y"})]


def test_texts_only_pass_through(tmp_path, monkeypatch):
    monkeypatch.setattr("dexml.data.textfile.BLOCK", 1 << 20)  # of the final check
    made = (Record(f"{i} " + "x" * 10_000, ["a"]) for i in range(3000))
    tracemalloc.start()
    write_folder(Source(made), tmp_path / "d")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20  # of 30 MB


def test_splits_go_by_their_usual_names(tmp_path):
    folder = write_folder(source(Record("a", ["x"], "train"), Record("b", ["x"], "Test")), tmp_path / "d").path
    assert (in_order(folder, "trn"), in_order(folder, "tst")) == ([("a", {"x"})], [("b", {"x"})])


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted() -> Iterator[Record | Fault]:
        yield from TWO
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(Source(interrupted()), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    def full() -> Iterator[Record | Fault]:
        yield from TWO
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="d was not made: writing: No space left on device"):
        write_folder(Source(full()), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_does_not_disturb(tmp_path):
    (tmp_path / ".d.tmp" / "d" / "raw").mkdir(parents=True)
    write_folder(source(*TWO), tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="exists already"):
        write_folder(source(*TWO), tmp_path / "d")


def test_a_label_beyond_the_label_texts_of_a_closed_source_is_a_fault(tmp_path):
    made = source(*TWO, label_texts=iter([LabelText("x", "fox")]), closed=True)
    with pytest.raises(DataError, match="label 'y' is not among the 1 label texts"):
        write_folder(made, tmp_path / "d")


def test_a_label_text_given_twice_is_a_fault(tmp_path):
    made = source(*TWO, label_texts=iter([LabelText("x", "1"), LabelText(" x", "2", "l.tsv:2")]))
    with pytest.raises(DataError, match=r"l\.tsv:2: label 'x' is there already"):
        write_folder(made, tmp_path / "d")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([], "no records"),
        ([Record("a", ["x"], "tst")], "no points for trn"),
        ([Record("a", []), Record("b", [], "tst")], r"/d/raw/Y\.txt has no lines"),
    ],
)
def test_what_would_be_no_data_set_is_refused(tmp_path, made, reason):
    with pytest.raises(DataError, match=reason):
        write_folder(source(*made), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_without_test_points_a_share_is_drawn_by_the_seed(tmp_path):
    def made(name, seed):
        points = [Record(str(i), ["x"], "dev" if i == 9 else "trn") for i in range(10)]
        return write_folder(source(*points), tmp_path / name, Split(0.3, seed=seed)).path

    a, b, c = made("a", 1), made("b", 1), made("c", 2)
    assert [len(in_order(a, split)) for split in ("trn", "tst", "dev")] == [6, 3, 1]
    assert in_order(a, "tst") == in_order(b, "tst") != in_order(c, "tst")
    assert in_order(a, "trn") == sorted(in_order(a, "trn"))  # the order of the source


def test_groups_stay_together_and_unseen_labels_have_no_training_point(tmp_path):
    points = [Record(f"{i}", [f"l{i % 7}"], group=f"g{i % 10}") for i in range(50)]
    by_group = write_folder(source(*points), tmp_path / "g", Split(0.2, "groups")).path
    groups = {split: {int(text) % 10 for text, _ in in_order(by_group, split)} for split in ("trn", "tst")}
    assert len(groups["tst"]) == 2
    assert not groups["trn"] & groups["tst"]
    data = Dataset.load(write_folder(source(*points), tmp_path / "l", Split(0.2, "labels")).path)
    unseen = np.setdiff1d(data.tst.relevance.indices, data.trn.relevance.indices)
    assert len(unseen) == 2


def test_groups_that_the_source_does_not_have_are_told(tmp_path):
    with pytest.raises(DataError, match="names no groups"):
        write_folder(source(Record("a", ["x"]), Record("b", ["x"])), tmp_path / "d", Split(0.5, "groups"))


@pytest.mark.parametrize(("options", "reason"), [({"share": 1.0}, "between 0 and 1"), ({"by": "age"}, "rows, groups")])
def test_a_split_that_makes_no_sense_is_refused(options, reason):
    with pytest.raises(DataError, match=reason):
        Split(**options)
