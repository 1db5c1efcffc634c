"""BEIR: corpus.jsonl holds the labels, queries.jsonl the points, qrels/*.tsv which belong together."""

from __future__ import annotations

from pathlib import Path

from dexml.data.write.source import WriteSource, json_line, number

SPLITS = {"trn": "train", "tst": "test", "dev": "dev"}


def write_beir(source: WriteSource, folder: Path) -> None:
    """Point i of a split is the query `trn-i`. A point without labels is a query that no file judges."""
    (folder / "qrels").mkdir()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8", newline="\n") as corpus:
        for name, text in zip(source.ids, source.texts, strict=True):
            corpus.write(json_line({"_id": name, "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8", newline="\n") as queries:
        for split in source.dataset.splits:
            with (folder / "qrels" / f"{SPLITS[split]}.tsv").open("w", encoding="utf-8", newline="\n") as qrels:
                qrels.write("query-id\tcorpus-id\tscore\n")
                for point in source.points(split):
                    query = f"{split}-{point.row}"
                    queries.write(json_line({"_id": query, "text": point.text}) + "\n")
                    pairs = zip(point.labels, point.relevance, strict=True)
                    qrels.writelines(f"{query}\t{source.ids[label]}\t{number(value)}\n" for label, value in pairs)
