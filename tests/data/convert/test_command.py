import pytest

from dexml.cli import main
from dexml.data import DataError
from dexml.data.convert import FORMATS, detect
from tests.data.convert.helpers import in_order, labels_of


def test_every_option_of_the_command(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("t,b,l,who\n1,x,a;b,ann\n2,x,b,bob\n\nbad\n3,x,c,ann\n")
    (tmp_path / "l.tsv").write_text("c\tcat\n")
    words = f"prepare {tmp_path}/a.csv {tmp_path}/d --text-column t,b --label-column l --delimiter ; --seed 3"
    words += f" --split-by groups --group-column who --test-size 0.3 --on-error skip --labels {tmp_path}/l.tsv"
    assert main(words.split()) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:3] == [
        f"{tmp_path}/d",
        "left out 1 records:",
        f"  {tmp_path}/a.csv:5: 1 cells in 4 columns: put quotes around a cell that holds ','",
    ]
    assert "split: 0.3 of the points are test points, drawn by groups with seed 3" in told
    assert labels_of(tmp_path / "d") == ["cat", "a", "b"]
    texts = {split: {text for text, _ in in_order(tmp_path / "d", split)} for split in ("trn", "tst")}
    assert {"1 x", "3 x"} in texts.values()


def test_an_error_is_told_in_one_line_and_the_status_is_two(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text,labels\nbad\n")
    assert main(["prepare", f"{tmp_path}/a.csv", f"{tmp_path}/d"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/a.csv:2: 1 cells in 2 columns")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_help_lists_the_formats(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in FORMATS)
    assert "iconclass" in told


def test_an_unclear_format_is_told_with_the_choices(tmp_path):
    (tmp_path / "a.txt").write_text("x\ty\n")
    with pytest.raises(DataError, match=r"(?s)a\.txt has no format that shows .* --format\n.*libmultilabel"):
        detect(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("source", "form", "reason"),
    [
        ("in", "csv", "in is a folder: this format is one file"),
        ("in", "parquet", "in: not a readable Parquet file"),
        ("a.csv", "tables", "a.csv is no folder"),
        ("a.csv", "xmc-json", "a.csv: the folder must hold trn.json.gz"),
        ("a.csv", "xmc-bow", "a.csv: a bag of words has no text"),
        ("a.csv", "beir", "a.csv: a BEIR folder holds"),
        ("a.csv", "folder", "a.csv: no training texts"),
        ("a.csv", "hf-disk", "a.csv: not a folder of save_to_disk"),
        ("in", "libmultilabel", "in has no train.txt"),
        ("a.csv", "pecos", "a.csv:1: 1 fields between tabs"),
    ],
)
def test_a_wrong_format_is_told_in_its_own_words(tmp_path, capsys, monkeypatch, source, form, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "a.csv").write_text("text,labels\na,x\n")
    assert main(["prepare", source, "d", "--format", form]) == 2
    assert f"error: {reason}" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_told(tmp_path, capsys):
    assert main(["prepare", "owner/name", f"{tmp_path}/d"]) == 2
    assert "owner/name: no such file or folder (a data set of the Hub needs --format hf)" in capsys.readouterr().err
