import csv
import gzip
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from pyarrow import parquet

from dexml.data import DataError, Dataset
from dexml.data.convert import Options, prepare
from dexml.data.convert.cells import label_names
from tests.data.convert.helpers import expected, in_order, labels_of, records, stored

POINTS = [("a ship, in a storm", ["ship", "storm"]), ('say "x"', ["007"]), ("", ["NA"]), ("line\nend", ["storm"])]
HUGE = [("\u2028x" * (1 << 18), ["a\nb", 'q"']), ("\u202e\u05d0\U0001f600", ["7", "007"])]


def write_csv(path: Path, points, header=("text", "labels"), **form) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **form)
        writer.writerow(header)
        writer.writerows([text, json.dumps(labels)] for text, labels in points)
    return path


def write_jsonl(path: Path, points) -> Path:
    rows = (json.dumps({"text": text, "labels": labels}, ensure_ascii=False) for text, labels in points)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", newline="\n")
    return path


def write_parquet(path: Path, points, **form) -> Path:
    table = {"text": [text for text, _ in points], "labels": [labels for _, labels in points]}
    schema = pa.schema({"text": pa.string(), "labels": pa.list_(pa.string())})
    parquet.write_table(pa.table(table, schema=schema), path, **form)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_comes_through_whole(kind):
    @settings(max_examples=25)
    @example(HUGE)
    @given(records)
    def check(points):
        with tempfile.TemporaryDirectory() as root:
            path = WRITERS[kind](Path(root) / f"data.{kind}", points)
            if sum(bool(labels) for _, labels in expected(points)) < len(points):
                points = [(text, [*labels, "all"]) for text, labels in points]
                WRITERS[kind](path, points)
            assert stored(prepare(path, Path(root) / "d").path) == expected(points)

    check()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_gzipped_table_is_read_and_a_damaged_one_told(tmp_path, kind):
    path = tmp_path / f"data.{kind}.gz"
    plain = WRITERS[kind](tmp_path / f"data.{kind}", POINTS)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert stored(prepare(path, tmp_path / "d").path) == expected(POINTS)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=rf"data\.{kind}\.gz: damaged gzip file"):
        prepare(path, tmp_path / "e")


def test_a_table_in_utf_16_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("text,labels\na,x\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"a\.csv is UTF-16: convert it with `iconv"):
        prepare(tmp_path / "a.csv", tmp_path / "d")


@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_the_separator_is_seen_in_the_header(tmp_path, separator):
    path = write_csv(tmp_path / "data.csv", POINTS, delimiter=separator)
    assert stored(prepare(path, tmp_path / "d").path) == expected(POINTS)


def test_spreadsheets_byte_order_mark_and_line_ends_are_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufefftext,labels\r\na,x\r\n\r\nb,y\r\n".encode())
    assert stored(prepare(tmp_path / "a.csv", tmp_path / "d").path) == [("a", {"x"}), ("b", {"y"})]


def test_columns_can_be_named_joined_and_split(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,title,body,tags,part,author\n1,t,b,x y;z,train,ann\n2,u,,z,VALID,bob\n3,v,c,,test,bob\n", encoding="utf-8"
    )
    options = Options(["title", "body"], "tags", ";", "part", "author")
    folder = prepare(tmp_path / "a.csv", tmp_path / "d", options=options).path
    assert [in_order(folder, split) for split in ("trn", "dev", "tst")] == [
        [("t b", {"x y", "z"})],
        [("u", {"z"})],
        [("v c", set())],
    ]


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("007,NA, ,,x", ["007", "NA", " ", "", "x"]),
        ('["a, b", "007", 7, 1.50, null]', ["a, b", "007", "7", "1.50"]),
        ('["\\ud83d\\ude00"]', ["\U0001f600"]),
        ("['a, b', 'c']", ["a, b", "c"]),
        ("[sic]", ["[sic]"]),
        ([7.0, float("nan"), None, 2.5, True], ["7", "2.5", "True"]),
        (7, ["7"]),
        (None, []),
    ],
)
def test_label_cells_of_every_kind(cell, names):
    assert list(label_names(cell)) == names


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_called_relevance_is_that_of_the_labels(tmp_path, kind):
    text, labels, values = ["a", "b", "t"], [["x", "y"], ["y"], ["x"]], [[0.5, 2.0], [1e-3], [1.0]]
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.table({"text": text, "labels": labels, "relevance": values}), path)
    elif kind == "jsonl":
        rows = [
            dict(zip(("text", "labels", "relevance"), row, strict=True))
            for row in zip(text, labels, values, strict=True)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("text;labels;relevance\na;x,y;0.5,2\nb;y;0.001\nt;x;\n")
    data = Dataset.load(prepare(path, tmp_path / "d", test=path).path)
    assert data.trn.relevance.toarray() == pytest.approx(np.array([[0.5, 2], [0, 0.001], [1, 0]]))


@pytest.mark.parametrize(
    ("cell", "reason"), [("1", "has 1 numbers for 2 labels"), ("1,b", "is not a number"), ("1,inf", "finite")]
)
def test_relevance_that_does_not_fit_is_told(tmp_path, cell, reason):
    (tmp_path / "a.csv").write_text(f"text;labels;relevance\na;x,y;{cell}\n")
    with pytest.raises(DataError, match=rf"a\.csv:2: relevance .*{reason}"):
        prepare(tmp_path / "a.csv", tmp_path / "d")


def test_a_delimiter_that_is_named_is_all_that_divides():
    assert label_names('["a", "b"]', "|") == ['["a", "b"]']
    assert label_names("Smith, John|Doe", "|") == ["Smith, John", "Doe"]


BROKEN = {
    "csv": (
        b'text,labels\na,x\nb,y,z\n"c"d,x\n\xff,x\nfine,x\n',
        [r":3: 3 cells in 2 columns: put quotes", r":4: ',' expected after '\"'", r":5: not valid UTF-8 \(byte 0xff\)"],
    ),
    "jsonl": (
        b'{"text": "a", "labels": ["x"]}\n[1]\n{"text": \n\n{"text": "\xff", "labels": []}\n'
        b'{"text": "b", "labels": {"x": 1}}\n{"text": ["b"], "labels": []}\n{"text": "fine", "labels": "x"}\n',
        [
            ":2: not an object",
            ":3: not JSON",
            ":5: not valid UTF-8",
            ":6: .* is a dict",
            ":7: column 'text' holds a list",
        ],
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_lines_are_named_and_can_be_skipped(tmp_path, kind):
    content, reasons = BROKEN[kind]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path)) + reasons[0]):
        prepare(path, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    made = prepare(path, tmp_path / "d", on_error="skip")
    assert made.notices[0] == f"left out {len(reasons)} records:"
    for line, reason in zip(made.notices[1:], reasons, strict=False):
        assert re.search(reason, line)
    assert stored(made.path) == [("a", {"x"}), ("fine", {"x"})]


def test_a_key_that_a_line_lacks_is_no_empty_cell(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "labels": null}\n{"text": "b", "label": ["x"]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: there is no 'labels': give an empty one"):
        prepare(tmp_path / "a.jsonl", tmp_path / "d")


def test_json_lines_without_an_object_are_told(tmp_path):
    (tmp_path / "a.jsonl").write_text('["text", "labels"]\n')
    with pytest.raises(DataError, match=r"a\.jsonl: there is no JSON object in it"):
        prepare(tmp_path / "a.jsonl", tmp_path / "d")


def test_a_quote_that_is_never_closed_is_told_where_it_opens(tmp_path):
    (tmp_path / "a.csv").write_text('text,labels\na,x\n"b,x\nc,y\n')
    with pytest.raises(DataError, match=r"a\.csv:3: unexpected end of data, all to line 4 is lost: a quote is in"):
        prepare(tmp_path / "a.csv", tmp_path / "d")


@pytest.mark.parametrize(
    ("header", "options", "reason"),
    [
        ("a,b", Options(), r"which column is it\? the columns are 'a', 'b': name one with --text-column"),
        ("text,b", Options(), "name one with --label-column"),
        ("text,b", Options(label_column="lab"), "there is no column 'lab': the columns are 'text', 'b'"),
        ("text,labels", Options(split_column="part"), "there is no column 'part'"),
        ("text,text,labels", Options(), "two columns are named 'text'"),
        ("", Options(), "which column"),
    ],
)
def test_columns_that_are_not_there_are_told_with_those_that_are(tmp_path, header, options, reason):
    (tmp_path / "a.csv").write_text(f"{header}\n1,2\n")
    with pytest.raises(DataError, match=reason):
        prepare(tmp_path / "a.csv", tmp_path / "d", options=options)


def test_a_split_of_another_name_is_a_fault(tmp_path):
    (tmp_path / "a.csv").write_text("text,labels,part\na,x,holdout\n")
    with pytest.raises(DataError, match=r"a\.csv:2: split 'holdout' is none of trn, train"):
        prepare(tmp_path / "a.csv", tmp_path / "d", options=Options(split_column="part"))


def test_parquet_numbers_and_row_groups(tmp_path):
    table = pa.table({"query": ["a", "b", None], "label": pa.array([7.0, None, 8.0])})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    assert stored(prepare(tmp_path / "a.parquet", tmp_path / "d").path) == [("", {"8"}), ("a", {"7"}), ("b", set())]
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"b\.parquet: not a readable Parquet file"):
        prepare(tmp_path / "b.parquet", tmp_path / "e")


def test_a_folder_of_tables_is_split_by_their_names(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_parquet(data / "train-00000-of-00002.parquet", [("a", ["x"])])
    write_parquet(data / "train-00001-of-00002.parquet", [("b", ["y"])])
    write_jsonl(data / "test.jsonl", [("c", ["x"])])
    write_jsonl(data / "other.jsonl", [("d", ["z"])])
    folder = prepare(data, tmp_path / "d").path
    assert in_order(folder, "trn") == [("a", {"x"}), ("b", {"y"})]
    assert in_order(folder, "tst") == [("c", {"x"})]
    assert labels_of(folder) == ["x", "y"]


def test_test_points_may_come_from_a_second_file(tmp_path):
    write_csv(tmp_path / "a.csv", POINTS)
    write_csv(tmp_path / "b.csv", [("t", ["new"])])
    folder = prepare(tmp_path / "a.csv", tmp_path / "d", test=tmp_path / "b.csv").path
    assert in_order(folder, "tst") == [("t", {"new"})]
    assert stored(folder, ("trn",)) == expected(POINTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.tsv", "s\tship of the line\nx\tunused\n007\tbond\n"),
        ("l.csv", 'id,text\ns,"ship of the line"\nx,unused\n007,bond\n'),
        (
            "l.jsonl",
            '{"id": "s", "text": "ship of the line"}\n{"id": "x", "t": "unused"}\n{"id": "007", "t": "bond"}\n',
        ),
    ],
)
def test_label_texts_come_from_a_second_file(tmp_path, name, content):
    (tmp_path / "a.csv").write_text("text,labels\na,s\nb,007\n")
    (tmp_path / name).write_text(content)
    folder = prepare(tmp_path / "a.csv", tmp_path / "d", labels=tmp_path / name).path
    assert labels_of(folder) == ["ship of the line", "unused", "bond"]
    assert stored(folder) == [("a", {"ship of the line"}), ("b", {"bond"})]


def test_label_texts_one_a_line_are_numbered(tmp_path):
    (tmp_path / "a.csv").write_text('text,labels\na,"0,2"\nb,1\n')
    (tmp_path / "l.txt").write_text("zero\none\ntwo\n")
    folder = prepare(tmp_path / "a.csv", tmp_path / "d", labels=tmp_path / "l.txt").path
    assert stored(folder) == [("a", {"zero", "two"}), ("b", {"one"})]
    assert not (folder / "raw" / "Y.ids.txt").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("l.tsv", "a\tb\nc\n", r"l\.tsv:2: no tab"),
        ("l.csv", "id\na\n", r"l\.csv:2: one column"),
        ("l", None, "no such"),
    ],
)
def test_a_broken_label_file_is_told(tmp_path, name, content, reason):
    (tmp_path / "a.csv").write_text("text,labels\na,s\nb,007\n")
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        prepare(tmp_path / "a.csv", tmp_path / "d", labels=tmp_path / name)


def test_twenty_thousand_lines(tmp_path):
    write_csv(tmp_path / "a.csv", [(f"text {i}", [f"l{i % 997}", f"m{i % 13}"]) for i in range(20_000)])
    folder = prepare(tmp_path / "a.csv", tmp_path / "d").path
    assert len(labels_of(folder)) == 1010
    assert (len(in_order(folder, "trn")), len(in_order(folder, "tst"))) == (16_000, 4_000)
