import json
from pathlib import Path

import pytest

from dexml.data import DataError, Dataset
from dexml.data.convert import prepare
from tests.data.convert.helpers import in_order, labels_of

CORPUS = [{"_id": "d2", "title": "Fox", "text": "an\nanimal"}, {"_id": "d1", "title": "", "text": "a boat"}]
QUERIES = [{"_id": "q1", "text": "red"}, {"_id": "q2", "text": "blue\u2028"}, {"_id": "q3", "text": "never judged"}]
HEADER = "query-id\tcorpus-id\tscore\n"


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    write_rows(folder / "corpus.jsonl", CORPUS)
    write_rows(folder / "queries.jsonl", QUERIES)
    (folder / "qrels" / "train.tsv").write_text(f"{HEADER}q1\td1\t2\nq1\td2\t0\n")
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}q2\td2\t1\nq1\td2\t1\n")
    return folder


def test_queries_are_points_and_documents_labels(beir, tmp_path):
    folder = prepare(beir, tmp_path / "d").path
    assert labels_of(folder) == ["Fox an animal", "a boat"]
    assert (folder / "raw" / "Y.ids.txt").read_text().split() == ["d2", "d1"]
    assert in_order(folder, "trn") == [("red", {"a boat"})]
    assert Dataset.load(folder).trn.relevance.toarray().tolist() == [[0, 2]]
    assert in_order(folder, "tst") == [("red", {"Fox an animal"}), ("blue", {"Fox an animal"})]


def test_a_test_collection_is_split(beir, tmp_path):
    (beir / "qrels" / "train.tsv").unlink()
    folder = prepare(beir, tmp_path / "d").path
    assert len(in_order(folder, "trn")) == len(in_order(folder, "tst")) == 1


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("qrels/train.tsv", f"{HEADER}q1\td1\n", r"train\.tsv:2: 'q1\\td1' is not query-id<TAB>corpus-id<TAB>score"),
        ("qrels/train.tsv", f"{HEADER}q1\td9\t1\n", r"queries\.jsonl:1: label 'd9' is not among the 2 label texts"),
        ("qrels/train.tsv", f"{HEADER}q9\td1\t1\n", r"train\.tsv: query 'q9' is not in queries\.jsonl"),
        ("queries.jsonl", '{"text": "x"}\n', r"queries\.jsonl:1: no key '_id'"),
        ("corpus.jsonl", '{"text": "x"}\n', r"corpus\.jsonl:1: no key '_id'"),
        ("corpus.jsonl", "{\n", r"corpus\.jsonl:1: not JSON"),
    ],
)
def test_broken_files_are_named(beir, tmp_path, file, content, reason):
    (beir / file).write_text(content)
    with pytest.raises(DataError, match=reason):
        prepare(beir, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_folder_without_judgements_is_told(beir, tmp_path):
    for file in (beir / "qrels").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"a BEIR folder holds corpus\.jsonl, queries\.jsonl and qrels/train\.tsv"):
        prepare(beir, tmp_path / "d")
