"""A folder in another format holds what the folder held: read by the format's own library, and back by our readers."""

import csv
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexml.cli import main
from dexml.data import DataError, Dataset
from dexml.data.convert import prepare
from dexml.data.convert.records import fold
from dexml.data.write import WRITERS, convert
from dexml.data.write import source as write_source
from tests.helpers.datasets import make_toy, write_dataset

HOSTILE = ["tab\there", '"quoted", and', "a,b;c|d", "line\u2028end\u2029x\x85y", "\r in it", "עברית עם אב", "👩‍👩‍👧 ok"]
HOSTILE += [
    "[1, 2]",
    "NA",
    "007",
    "null",
    "\x00nul",
    "\\n \\u0041",
    "</script>",
    "=1+1",
    "\ufeffmark",
    "'",
    "-1",
    "x" * 1_000_000,
]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
LABEL = TEXT.filter(lambda text: fold(text))
GRADES = st.sampled_from([0, 0, 1, 0.5])


@st.composite
def folders(draw, graded):
    """Label texts, and of two splits texts and relevance."""
    labels = draw(st.lists(LABEL, min_size=1, max_size=5))
    grades = GRADES if graded else st.sampled_from([0, 1])
    parts = []
    for _ in range(2):
        texts = draw(st.lists(TEXT, min_size=1, max_size=5))
        cells = draw(st.lists(grades, min_size=len(texts) * len(labels), max_size=len(texts) * len(labels)))
        parts.append((texts, np.reshape(cells, (len(texts), len(labels)))))
    parts[0][1][0, 0] = 1  # there has to be something to learn
    return labels, *parts


def contents(dataset, change=lambda text: text):
    """Of each split, texts with their labels by text and their relevance, in order; and the label texts."""
    labels = [change(text) for text in dataset.label_texts]
    splits = {}
    for name, split in dataset.splits.items():
        rows = (split.relevance[row] for row in range(len(split)))
        cells = [list(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in rows]
        splits[name] = list(zip(map(change, split.texts), cells, strict=True))
    return labels, splits


def written(drawn, to, check):
    with TemporaryDirectory() as scratch:
        labels, trn, tst = drawn
        dataset = Dataset.load(write_dataset(Path(scratch) / "Data", trn, tst, labels))
        check(dataset, convert(dataset.path, Path(scratch) / "out", to))


def read_hf(folder):
    from datasets import load_from_disk

    data = load_from_disk(str(folder))
    names, texts = zip(*csv_rows(folder / "labels.csv")[1:], strict=True)
    splits = {}
    for name, part in (("trn", data["train"]), ("tst", data["test"])):
        labels = [[names.index(label) for label in own] for own in part["labels"]]
        values = part["relevance"] if "relevance" in part.column_names else [[1.0] * len(own) for own in labels]
        cells = [list(zip(own, value, strict=True)) for own, value in zip(labels, values, strict=True)]
        splits[name] = list(zip(part["text"], cells, strict=True))
    return list(texts), splits


def csv_rows(path):
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def read_csv(folder):
    names, texts = zip(*csv_rows(folder / "labels.csv")[1:], strict=True)
    splits = {}
    for name, file in (("trn", "train.csv"), ("tst", "test.csv")):
        header, *rows = csv_rows(folder / file)
        assert header[:2] == ["text", "labels"]
        splits[name] = []
        for text, own, *values in rows:
            own = [names.index(label) for label in json.loads(own)]
            splits[name].append(
                (text, list(zip(own, json.loads(values[0]) if values else [1.0] * len(own), strict=True)))
            )
    return list(texts), splits


def json_rows(path):
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]


def read_beir(folder):
    corpus = json_rows(folder / "corpus.jsonl")
    places = {row["_id"]: place for place, row in enumerate(corpus)}
    texts = {row["_id"]: row["text"] for row in json_rows(folder / "queries.jsonl")}
    splits = {}
    for name, file in (("trn", "train.tsv"), ("tst", "test.tsv")):
        cells = {query: [] for query in texts if query.startswith(name)}
        for line in (folder / "qrels" / file).read_text().splitlines()[1:]:
            query, document, score = line.split("\t")
            cells[query].append((places[document], float(score)))
        splits[name] = [(texts[query], own) for query, own in cells.items()]
    return [row["text"] for row in corpus], splits


@pytest.mark.parametrize(("to", "read"), [("hf", read_hf), ("csv", read_csv), ("beir", read_beir)])
def test_the_library_of_the_format_reads_what_the_folder_held(to, read):
    @settings(max_examples=25, deadline=None)
    @given(folders(graded=True))
    def holds(drawn):
        written(drawn, to, lambda dataset, out: _equal(read(out), contents(dataset)))

    holds()


def _equal(found, expected):
    assert found == expected


def test_libmultilabel_lines_have_three_fields_whatever_the_text():
    @settings(max_examples=25, deadline=None)
    @given(folders(graded=False))
    def holds(drawn):
        written(drawn, "libmultilabel", check)

    def check(dataset, out):
        for name, file in (("trn", "train.txt"), ("tst", "test.txt")):
            lines = (out / file).read_bytes().decode().split("\n")[:-1]
            assert not any("\r" in line for line in lines)
            fields = [line.split("\t") for line in lines]
            split = dataset.splits[name]
            assert [text for _, _, text in fields] == [t.replace("\t", " ").replace("\r", " ") for t in split.texts]
            own = [split.relevance[row].indices.tolist() for row in range(len(split))]
            assert [list(map(int, labels.split())) for _, labels, _ in fields] == own

    holds()


@pytest.mark.parametrize("to", list(WRITERS))
def test_our_own_readers_bring_the_folder_back(to):
    """But for what no data folder that they make holds: line ends and tabs inside a text."""

    @settings(max_examples=20, deadline=None)
    @given(folders(graded=to != "libmultilabel"))
    def holds(drawn):
        if to == "beir":  # a query without judgements belongs to no split
            drawn[1][1][:, 0] = drawn[2][1][:, 0] = 1
        written(drawn, to, check)

    def check(dataset, out):
        form = {"hf": "hf-disk", "csv": "tables"}.get(to, to)
        keyed = (out / "labels.csv").is_file()
        labels = out / "labels.csv" if keyed else None
        back = prepare(out, out.parent / "back", form, labels=labels).path
        assert contents(Dataset.load(back)) == contents(dataset, fold)

    holds()


# ---- beyond the contents --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("root") / "Toy", n_trn=40, n_tst=10)


def test_labels_of_one_text_are_told_apart_by_their_ids(tmp_path):
    folder = write_dataset(tmp_path / "Data", (["x", "y"], np.eye(2)), (["z"], [[1, 1]]), ["same", "same"])
    assert csv_rows(convert(folder, tmp_path / "out", "csv") / "train.csv")[1:] == [["x", '["0"]'], ["y", '["1"]']]
    assert csv_rows(tmp_path / "out" / "labels.csv")[1:] == [["0", "same"], ["1", "same"]]


def test_ids_of_the_folder_are_used(tmp_path):
    folder = write_dataset(tmp_path / "Data", (["x", "y"], np.eye(2)), (["z"], [[1, 1]]), ["cats", "dogs"])
    (folder / "raw" / "Y.ids.txt").write_text("Q146\nQ144\n")
    lines = (convert(folder, tmp_path / "out", "libmultilabel") / "test.txt").read_text()
    assert lines == "tst-0\tQ146 Q144\tz\n"


@pytest.mark.parametrize("ids", ["1\n", "a\na\n", "a b\nc\n", "\nc\n"])
def test_ids_that_do_not_fit_are_not_used(tmp_path, ids):
    folder = write_dataset(tmp_path / "Data", (["x", "y"], np.eye(2)), (["z"], [[1, 1]]), ["cats", "dogs"])
    (folder / "raw" / "Y.ids.txt").write_text(ids)
    assert (convert(folder, tmp_path / "out", "libmultilabel") / "test.txt").read_text() == "tst-0\t0 1\tz\n"


def test_batches_are_all_points_in_order(toy, monkeypatch, tmp_path):
    whole = (convert(toy, tmp_path / "one", "csv") / "train.csv").read_bytes()
    monkeypatch.setattr(write_source, "BATCH", 3)
    assert (convert(toy, tmp_path / "two", "csv") / "train.csv").read_bytes() == whole


def test_filter_files_go_along(toy, tmp_path):
    (toy / "filter_labels_test.txt").write_text("0 1\n")
    assert (convert(toy, tmp_path / "out", "beir") / "filter_labels_test.txt").read_text() == "0 1\n"


def test_libmultilabel_refuses_what_it_cannot_hold(tmp_path):
    folder = write_dataset(tmp_path / "Data", (["x"], [[0.5]]), (["z"], [[1]]), ["cats"])
    with pytest.raises(DataError, match="no place: choose hf, beir or csv"):
        convert(folder, tmp_path / "out", "libmultilabel")
    assert [path.name for path in tmp_path.iterdir()] == ["Data"]


@pytest.mark.parametrize("to", list(WRITERS))
def test_a_failure_leaves_nothing_behind(toy, tmp_path, monkeypatch, to):
    monkeypatch.setattr(
        "dexml.data.write.source.WriteSource.batches", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        convert(toy, tmp_path / "out", to)
    assert not list(tmp_path.iterdir())


def test_the_command_says_where_and_refuses_a_place_that_is_taken(toy, tmp_path, capsys):
    assert main(["convert", str(toy), str(tmp_path / "out"), "--to", "csv"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert main(["convert", str(toy), str(tmp_path / "out"), "--to", "beir"]) == 2
    assert "out is there already" in capsys.readouterr().err
