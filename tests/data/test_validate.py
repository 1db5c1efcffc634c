"""What `dexml validate` counts, finds, prints and draws."""

import re

import numpy as np
import pytest
from scipy import sparse

from dexml.cli import main
from dexml.data import DataError, Dataset, statistics
from dexml.data.findings import ID, NUMERIC, all_findings
from dexml.data.notices import Warned
from dexml.data.statistics import Statistics, word_counts
from tests.helpers.datasets import PACKAGED, make_tokenizer, make_toy, write_dat, write_dataset, write_lines

LABELS = ["cats", "dogs", "Cats", "42", "x", "D012345", "birds", " ".join(["long"] * 60)]
TRN = ["they purr loud today", "they bark", "they bark", "a dog with a very long tail", "a b c d e f g h i"]
TST = ["THEY BARK!", "a dog with a very long tail", "b a c d e f g h i", "something new"]


@pytest.fixture
def folder(tmp_path):
    trn, tst = np.zeros((5, 8)), np.zeros((4, 8))
    trn[:, 0], trn[0, 1], tst[:, 1], tst[3, 6] = 1, 1, 1, 1
    return write_dataset(tmp_path / "Pets", (TRN, trn), (TST, tst), LABELS)


@pytest.fixture
def found(folder):
    return all_findings(Statistics(Dataset.load(folder)))


@pytest.mark.parametrize(
    "told",
    [
        "1 test texts (25.0%) are training texts too",
        "1 test texts (25.0%) differ from a training text in case, punctuation",
        "1 test texts (25.0%) share four in five of the first 128 words",
        "1 training texts (20.0%) repeat an earlier one: merge them, their labels united: trn_X.txt lines 3",
        "1 labels (12.5%) are given to 80% of the training points or more: Y.txt lines 1",
        "5 labels (62.5%) have no text in any split: Y.txt lines 3, 4, 5, 6, 8",
        "1 pairs of the other splits (20.0%) are of labels without a training point",
        "1 labels (12.5%) differ from an earlier label in case or white space only: Y.txt lines 3",
        "1 labels (12.5%) are numbers, of which a text encoder knows nothing: Y.txt lines 4",
        "1 labels (12.5%) look like ids: give them names, if they have any: Y.txt lines 6",
        "1 labels (12.5%) are one character long: Y.txt lines 5",
        "1 labels (12.5%) have more than 50 words: Y.txt lines 8",
    ],
)
def test_each_fault_is_found_once(found, told):
    assert sum(finding.text.startswith(told) for finding in found) == 1


def test_warnings_come_first_and_a_leak_shows_both_texts(found):
    assert [finding.warns for finding in found] == sorted((finding.warns for finding in found), reverse=True)
    leak = next(finding for finding in found if "four in five" in finding.text)
    assert leak.examples == ["tst_X.txt:3 b a c d e f g h i\n≈ trn_X.txt:5 a b c d e f g h i"]


def test_a_clean_folder_has_no_findings(tmp_path):
    texts = [f"{first} {second}" for first in ("red", "blue", "grey") for second in ("fox", "boat", "lamp")]
    folder = write_dataset(
        tmp_path / "Clean", (texts[:6], np.eye(6)), (texts[6:], np.eye(3, 6)), ["one", "two", "six", "ten", "all", "no"]
    )
    assert all_findings(Statistics(Dataset.load(folder))) == []


def test_rare_faults_are_notes(tmp_path):
    texts = [f"text {number} of many" for number in range(300)]
    folder = write_dataset(tmp_path / "A", (["", *texts], np.eye(301, 40)), (["one more"], np.eye(1, 40)), texts[:40])
    notices = Dataset.load(folder).notices
    assert [isinstance(notice, Warned) for notice in notices if "empty text" in notice] == [False]
    assert [isinstance(notice, Warned) for notice in notices if "no label" in notice] == [True]


@pytest.mark.parametrize("text", ["42", "1990-95", "3.14", "(7)"])
def test_numbers(text):
    assert NUMERIC.fullmatch(text)


@pytest.mark.parametrize("text", ["D012345", "c_1042", "label:3", "00f1a2b3c4d5e6f7a8b9", "https://x.y/z", "B99.1"])
def test_ids(text):
    assert ID.fullmatch(text) and not NUMERIC.fullmatch(text)


@pytest.mark.parametrize("text", ["cats", "MP3", "5G", "F 16", "World War 2", "H1N1 virus", "C++", "", "日本"])
def test_names_that_are_no_ids(text):
    assert not ID.fullmatch(text) and not NUMERIC.fullmatch(text)


def test_words_stand_between_white_space():
    texts = ["", "  ", "one", " two  words ", "a\tb\x0bc", "naïve café"]
    assert word_counts(texts).tolist() == [len(text.split()) for text in texts]
    assert word_counts([]).tolist() == []


def test_measures_are_those_of_a_plain_count(folder):
    measures = {one.key: one.values.tolist() for one in Statistics(Dataset.load(folder)).measures}
    assert measures["labels-trn"] == [2, 1, 1, 1, 1]
    assert measures["points"] == [5, 1, 0, 0, 0, 0, 0, 0]
    assert measures["words-tst"] == [2, 7, 9, 2]
    assert measures["words-lbl"] == [1, 1, 1, 1, 1, 1, 1, 60]


def test_tokens_are_counted_uncut_on_a_spread_sample(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLE", 3)
    tokenizer = str(make_tokenizer(tmp_path / "tokenizer", [word for text in TRN for word in text.split()]))
    measures = {one.key: one for one in Statistics(Dataset.load(folder), tokenizer, max_len=5).measures}
    tokens = measures["tokens-trn"]
    assert tokens.values.tolist() == [6, 4, 11]  # two special tokens each
    assert (tokens.cut, tokens.lost) == (pytest.approx(2 / 3), pytest.approx(7 / 21))


def test_a_token_file_that_training_refuses_is_an_error(folder, tmp_path):
    tokenizer = str(make_tokenizer(folder.parent / "tokenizer"))
    name = tokenizer.replace("/", "_")
    write_dat(folder / "raw" / f"tst_X.{name}_8.dat", np.ones((3, 8), np.int64))
    with pytest.raises(DataError, match="has 3 rows but"):
        Statistics(Dataset.load(folder), tokenizer, max_len=8)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_status_is_0_with_warnings_1_if_strict_2_with_errors(folder, tmp_path, capsys):
    assert main(["validate", str(folder)]) == 0
    assert "warning: 1 test texts" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["validate", str(folder), "--strict"])
    assert stopped.value.code == 1
    sparse.save_npz(folder / "Y.tst.npz", sparse.csr_matrix((3, 8)))
    assert main(["validate", str(folder), "--strict"]) == 2
    assert "tst_X.txt has 4 lines but Y.tst.npz has 3 rows" in capsys.readouterr().err


def test_strict_is_0_without_warnings(tmp_path):
    folder = make_toy(tmp_path / "Toy", n_trn=1000)
    write_lines(folder / "raw" / "tst_X.txt", [f"word{i} thing{i} only here{i}" for i in range(50)])
    write_lines(folder / "raw" / "trn_X.txt", [f"text{i} of{i} its own{i}" for i in range(1000)])
    assert main(["validate", str(folder), "--strict"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tf", "./nowhere"], "model folder './nowhere' does not exist"),
        (["--tf", PACKAGED, "--max-len", "2"], "max length 2 leaves no room"),
        (["--html", "nowhere/page.html"], "nowhere is no folder to write to"),
    ],
)
def test_what_cannot_be_used_is_one_error(folder, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["validate", str(folder), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_damaged_choice_of_validation_rows_is_an_error(folder, capsys):
    np.save(folder / "val_inds_2.npy", np.array([0, 9]))
    assert main(["validate", str(folder)]) == 2
    assert "val_inds_2.npy: expected 2 different row numbers in 0..4" in capsys.readouterr().err


def test_the_page_stands_alone_and_escapes_what_the_data_say(folder, tmp_path, capsys):
    pytest.importorskip("jinja2")
    hostile = '</style><script>alert("1")</script>'
    write_lines(folder / "raw" / "tst_X.txt", [TRN[3], hostile, TST[2], hostile])
    page = tmp_path / "page.html"
    assert main(["validate", str(folder), "--tf", PACKAGED, "--max-len", "6", "--html", str(page)]) == 0
    html = page.read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert not re.search(r'(?:src|href)="(?!#|data:,)', html)
    assert html.count("<figure>") == 7
    assert "Training can start, but" in html
