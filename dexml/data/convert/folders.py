"""Folders of aligned files, line i is point i: AttentionXML, LightXML, X-Transformer, XR-Transformer, NGAME, dexml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scipy import sparse

from dexml.data.convert.labeltexts import numbered_label_texts
from dexml.data.convert.records import Fault, Options, Record, Source
from dexml.data.convert.sparsetext import read_sparse_text
from dexml.data.convert.textlines import about_lines, stripped_lines
from dexml.data.dataset import FILTER_FILES
from dexml.data.files import DataError
from dexml.data.relevance import check_shape, load_filters, load_relevance
from dexml.data.textfile import Lines

TEXT_FILES = {  # of each split, the first that is there
    "trn": ("raw/trn_X.txt", "trn_X.txt", "X.trn.txt", "train_raw_texts.txt", "train_texts.txt"),
    "tst": ("raw/tst_X.txt", "tst_X.txt", "X.tst.txt", "test_raw_texts.txt", "test_texts.txt"),
    "dev": ("raw/dev_X.txt", "X.val.txt", "valid_raw_texts.txt", "valid_texts.txt"),
}
LINE_FILES = {"trn": "train_labels.txt", "tst": "test_labels.txt", "dev": "valid_labels.txt"}
MATRIX_FILES = {
    "trn": ("Y.trn.npz", "trn_X_Y.txt"),
    "tst": ("Y.tst.npz", "tst_X_Y.txt"),
    "dev": ("Y.dev.npz", "Y.val.npz"),
}
LABEL_FILES = ("raw/Y.txt", "Y.txt", "output-items.txt", "label_map.txt", "labels.txt")


@dataclass(frozen=True)
class Part:
    """The files of one split: texts, and a matrix or lines of labels."""

    split: str
    texts: Path
    labels: Path


def fits_folder(path: Path) -> bool:
    return any(part.split == "trn" for part in _parts(path))


def read_folder(path: Path, options: Options) -> Source:
    """Labels are names with spaces between them, or a matrix whose columns are lines of the label file."""
    parts = _parts(path)
    if not any(part.split == "trn" for part in parts):
        raise DataError(
            f"{path}: no training texts with labels: there must be one of {', '.join(TEXT_FILES['trn'])}, "
            f"and {' or '.join((*MATRIX_FILES['trn'], LINE_FILES['trn']))}"
        )
    about = sum(about_lines(part.texts) for part in parts)
    matrices = {part.labels.name in MATRIX_FILES[part.split] for part in parts}
    if matrices == {False}:
        lines = (record for part in parts for record in _lined(part, options.delimiter))
        return Source(lines, about)
    labels = _first(path, LABEL_FILES)
    if len(matrices) > 1 or labels is None:
        wanted = f"a matrix for every split and one of {', '.join(LABEL_FILES)}"
        raise DataError(f"{path}: columns of a matrix need label texts: there must be {wanted}")
    columns = Lines(labels)
    cells = (record for part in parts for record in _celled(path, part, columns))
    return Source(cells, about, numbered_label_texts(labels), closed=True)


def _parts(path: Path) -> list[Part]:
    found = []
    for split, names in TEXT_FILES.items():
        texts = _first(path, names)
        labels = _first(path, (*MATRIX_FILES[split], LINE_FILES[split]))
        if texts and labels:
            found.append(Part(split, texts, labels))
    return found


def _first(path: Path, names: tuple[str, ...]) -> Path | None:
    return next((path / name for name in names if (path / name).is_file()), None)


def _lined(part: Part, delimiter: str | None) -> Iterator[Record | Fault]:
    texts, labels = stripped_lines(part.texts), stripped_lines(part.labels)
    try:
        for (number, text), (_, names) in zip(texts, labels, strict=True):
            yield Record(text, names.split(delimiter), part.split, where=f"{part.texts}:{number}")
    except ValueError:
        counts = f"{len(Lines(part.texts))} lines but {part.labels.name} has {len(Lines(part.labels))}"
        raise DataError(f"{part.texts} has {counts}: line i must hold the labels of text i") from None


def _celled(path: Path, part: Part, columns: Lines) -> Iterator[Record | Fault]:
    texts = Lines(part.texts)
    relevance = _relevance(part.labels, texts, columns)
    filters = _filters(path, part.split, relevance.shape)
    for row, text in enumerate(texts):
        begin, end = relevance.indptr[row : row + 2]
        names = list(map(str, relevance.indices[begin:end].tolist()))
        hidden = list(map(str, filters[row].indices.tolist())) if filters is not None else ()
        values = relevance.data[begin:end].tolist()
        yield Record(text, names, part.split, relevance=values, filtered=hidden, where=f"{part.texts}:{row + 1}")


def _relevance(path: Path, texts: Lines, columns: Lines) -> sparse.csr_matrix:
    if path.suffix == ".npz":
        return load_relevance(path, texts, columns)
    relevance = read_sparse_text(path)
    check_shape(path, relevance.shape, texts, columns)
    return relevance


def _filters(path: Path, split: str, shape: tuple[int, int]) -> sparse.csr_matrix | None:
    file = path / FILTER_FILES.get(split, "none")
    return load_filters(file, *shape) if file.is_file() else None
