"""The Extreme Classification Repository: trn.json.gz with lbl.json.gz, or bag-of-words train.txt."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from dexml.data.convert.cells import relevance_values
from dexml.data.convert.records import Fault, LabelText, Options, Record, Source, Unreadable
from dexml.data.convert.tables import Row, json_rows
from dexml.data.convert.textlines import about_lines, first_line, split_files, stripped_lines
from dexml.data.dataset import FILTER_FILES
from dexml.data.files import DataError

HEADER = re.compile(r"\d+ \d+ \d+")
TEXT_KEYS = ("title", "content")
SUFFIXES = (".json.gz", ".json")
Filters = dict[int, list[str]]  # row of the source -> labels never to be predicted


def fits_json(path: Path) -> bool:
    return _json_file(path, "trn") is not None and _json_file(path, "lbl") is not None


def read_json(path: Path, options: Options) -> Source:
    """Texts are title and content (or --text-column), labels the lines of lbl.json named by target_ind, their relevance
    target_rel; filter_labels_*.txt are taken over."""
    labels = _json_file(path, "lbl")
    files = [(file, split) for split in ("trn", "tst") if (file := _json_file(path, split))]
    if labels is None or not files:
        raise DataError(f"{path}: the folder must hold trn.json.gz, tst.json.gz and lbl.json.gz")
    keys = options.text_columns or TEXT_KEYS
    records = (record for file, split in files for record in _points(file, split, keys, _filters(path, split)))
    return Source(records, sum(about_lines(file) for file, _ in files), _labels(labels), closed=True)


def fits_bow(path: Path) -> bool:
    train = path / "train.txt" if path.is_dir() else path
    return train.is_file() and HEADER.fullmatch(first_line(train).strip()) is not None


def read_bow(path: Path, options: Options) -> Source:
    """`points features labels`, then `l1,l2 f:v f:v`. The text of a point is its words by falling weight, from the
    vocabulary: line i is the word of feature i."""
    if options.vocabulary is None:
        raise DataError(
            f"{path}: a bag of words has no text: give --vocab FILE (line i is the word of feature i), or use the "
            f"raw texts of this data set"
        )
    words = [word.strip() for _, word in stripped_lines(options.vocabulary)]
    files = split_files(path, ".txt") if path.is_dir() else [(path, "trn")]
    n_labels = max(_header(file)[2] for file, _ in files)
    filters = {split: _filters(path, split) for _, split in files}  # a file alone has none
    records = (record for file, split in files for record in _bags(file, split, words, filters[split]))
    names = (LabelText(str(label), str(label)) for label in range(n_labels))
    return Source(records, sum(_header(file)[0] for file, _ in files), names, closed=True)


def _json_file(path: Path, stem: str) -> Path | None:
    return next((path / (stem + end) for end in SUFFIXES if (path / (stem + end)).is_file()), None)


def _filters(folder: Path, split: str) -> Filters:
    path = folder / FILTER_FILES.get(split, "none")
    filters: Filters = defaultdict(list)
    for number, line in stripped_lines(path) if path.is_file() else ():
        pair = line.split()
        if len(pair) == 2 and pair[0].isdecimal() and pair[1].isdecimal():
            filters[int(pair[0])].append(str(int(pair[1])))
        elif pair:
            raise DataError(f'{path}:{number}: {line[:60]!r} is not a pair of numbers "point label"')
    return filters


def _labels(path: Path) -> Iterator[LabelText | Fault]:
    for number, (line, row) in enumerate(json_rows(path)):
        if isinstance(row, Exception):  # without this line all labels after it would have wrong numbers
            raise DataError(f"{path}:{line}: {row}")
        text = row.get("title") or row.get("content") or row.get("uid") or ""
        yield LabelText(str(number), str(text), f"{path}:{line}")


def _points(path: Path, split: str, keys: Sequence[str], filters: Filters) -> Iterator[Record | Fault]:
    for point, (line, row) in enumerate(json_rows(path)):
        where = f"{path}:{line}"
        try:
            if isinstance(row, Unreadable):
                raise row
            yield _point(row, split, keys, filters.get(point, ()), where)
        except Unreadable as error:
            yield Fault(where, str(error))


def _point(row: Row, split: str, keys: Sequence[str], filtered: Sequence[str], where: str) -> Record:
    labels, values = row.get("target_ind"), row.get("target_rel")
    if not isinstance(labels, list):
        raise Unreadable("no list under 'target_ind'")
    relevance = relevance_values(values, len(labels))
    text = " ".join(str(row[key]) for key in keys if row.get(key))
    return Record(text, list(map(str, labels)), split, relevance=relevance, filtered=filtered, where=where)


def _header(path: Path) -> tuple[int, int, int]:
    header = first_line(path).strip()
    if not HEADER.fullmatch(header):
        raise DataError(f"{path}:1: {header[:60]!r} is not the header `points features labels`")
    points, features, labels = map(int, header.split())
    return points, features, labels


def _bags(path: Path, split: str, words: list[str], filters: Filters) -> Iterator[Record | Fault]:
    n_points, n_features, _ = _header(path)
    if len(words) < n_features:
        raise DataError(f"the vocabulary has {len(words)} words but {path.name} has {n_features} features")
    rows = stripped_lines(path)
    next(rows)
    point = -1
    for point, (line, row) in enumerate(rows):
        try:
            labels, _, features = row.partition(" ")
            yield Record(
                _words(features, words),
                labels.split(","),
                split,
                filtered=filters.get(point, ()),
                where=f"{path}:{line}",
            )
        except (ValueError, IndexError):
            yield Fault(f"{path}:{line}", f"{row[:60]!r} is not `l1,l2 f:v f:v` with features below {n_features}")
    if point + 1 != n_points:
        raise DataError(f"{path}: the header promises {n_points} points, {point + 1} are there: copy the file again")


def _words(features: str, words: list[str]) -> str:
    weighted = [
        (float(value), int(feature)) for feature, _, value in (pair.partition(":") for pair in features.split())
    ]
    if any(feature < 0 for _, feature in weighted):
        raise IndexError
    return " ".join(words[feature] for _, feature in sorted(weighted, key=lambda item: -item[0]))
