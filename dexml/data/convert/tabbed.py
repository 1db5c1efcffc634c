"""Lines with tabs: LibMultiLabel's `id<TAB>labels<TAB>text`, PECOS' `labels<TAB>text`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dexml.data.convert.labeltexts import numbered_label_texts
from dexml.data.convert.records import Fault, Options, Record, Source
from dexml.data.convert.textlines import about_lines, first_line, split_files, stripped_lines
from dexml.data.files import DataError

LABEL_FILES = ("output-items.txt", "output-labels.txt", "labels.txt")


def read_libmultilabel(path: Path, options: Options) -> Source:
    """A file, or a folder of train.txt, valid.txt, test.txt: `labels<TAB>text`, with an id before or not; labels are
    separated by spaces. A text keeps quotes and tabs as they are."""
    files = _files(path, ".txt")
    return Source(_joined(files, options.delimiter), sum(about_lines(file) for file, _ in files))


def read_pecos(path: Path, options: Options) -> Source:
    """PECOS' text2text: lines `0,5<TAB>text` with line numbers of output-items.txt, in a folder or one of its files."""
    files = _files(path, ".txt")
    folder = path if path.is_dir() else path.parent
    items = next((folder / name for name in LABEL_FILES if (folder / name).is_file()), None)
    texts = numbered_label_texts(items) if items else None
    about = sum(about_lines(file) for file, _ in files)
    return Source(_joined(files, options.delimiter or ","), about, texts, closed=items is not None)


def _files(path: Path, suffix: str) -> list[tuple[Path, str]]:
    files = split_files(path, suffix) if path.is_dir() else [(path, "trn")]
    if not files:
        raise DataError(f"{path} has no train{suffix}: name the training file so")
    return files


def _joined(files: list[tuple[Path, str]], delimiter: str | None) -> Iterator[Record | Fault]:
    for path, split in files:
        yield from _records(path, split, delimiter)


def _records(path: Path, split: str, delimiter: str | None) -> Iterator[Record | Fault]:
    fields = min(3, first_line(path).count("\t") + 1)
    for number, line in stripped_lines(path):
        parts = line.split("\t", fields - 1)
        where = f"{path}:{number}"
        if len(parts) == fields >= 2:
            yield Record(parts[-1], parts[-2].split(delimiter), split, where=where)
        elif line.strip():
            yield Fault(where, f"{len(parts)} fields between tabs: give labels<TAB>text, or id<TAB>labels<TAB>text")
