"""BEIR and MTEB retrieval folders: corpus.jsonl, queries.jsonl, qrels/*.tsv. Queries are points, documents labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dexml.data.convert.records import Fault, LabelText, Options, Record, Source
from dexml.data.convert.tables import json_rows
from dexml.data.convert.textlines import split_files, stripped_lines
from dexml.data.files import DataError

Qrels = dict[str, dict[str, float]]  # query id -> document id -> score


def fits_beir(path: Path) -> bool:
    return _file(path, "corpus") is not None and _file(path, "queries") is not None


def read_beir(path: Path, options: Options) -> Source:
    """Splits are those of qrels/; scores above 0 are relevance. A query without judgements is left out."""
    corpus, queries = _file(path, "corpus"), _file(path, "queries")
    files = split_files(path / "qrels", ".tsv") if (path / "qrels").is_dir() else []
    if corpus is None or queries is None or not files:
        raise DataError(
            f"{path}: a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/train.tsv or qrels/test.tsv"
        )
    qrels = [(file, split, _qrels(file)) for file, split in files]
    if all(split != "trn" for _, split, _ in qrels):  # a test collection: its queries are all there is to learn from
        qrels = [(file, "trn", judged) for file, _, judged in qrels]
    about = sum(len(judged) for *_, judged in qrels)
    return Source(_records(queries, qrels), about, _documents(corpus), closed=True)


def _file(path: Path, stem: str) -> Path | None:
    return next((path / f"{stem}.jsonl{end}" for end in ("", ".gz") if (path / f"{stem}.jsonl{end}").is_file()), None)


def _qrels(path: Path) -> Qrels:
    judged: Qrels = defaultdict(dict)
    for number, line in stripped_lines(path):
        fields = line.split("\t")
        if (number == 1 and fields[0] == "query-id") or not line:
            continue
        try:
            query, document, score = fields
            judged[query][document] = float(score)
        except ValueError:
            raise DataError(f"{path}:{number}: {line[:60]!r} is not query-id<TAB>corpus-id<TAB>score") from None
    return judged


def _documents(path: Path) -> Iterator[LabelText | Fault]:
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        if isinstance(row, Exception):
            yield Fault(where, str(row))
        elif "_id" not in row:
            yield Fault(where, "no key '_id'")
        else:
            yield LabelText(str(row["_id"]), f"{row.get('title') or ''} {row.get('text') or ''}", where)


def _records(path: Path, qrels: list[tuple[Path, str, Qrels]]) -> Iterator[Record | Fault]:
    waiting = [(file, set(judged)) for file, _, judged in qrels]
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        if isinstance(row, Exception) or "_id" not in row:
            yield Fault(where, str(row) if isinstance(row, Exception) else "no key '_id'")
            continue
        query = str(row["_id"])
        for (_, split, judged), (_, left) in zip(qrels, waiting, strict=True):
            if query in judged:
                left.discard(query)
                scores = judged[query]
                yield Record(
                    str(row.get("text") or ""), list(scores), split, relevance=list(scores.values()), where=where
                )
    for file, left in waiting:
        yield from (Fault(str(file), f"query {query!r} is not in {path.name}") for query in sorted(left))
