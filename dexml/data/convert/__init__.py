"""From the formats of the field into a data folder: readers yield records, one writer takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from dexml.data.convert.formats import FORMATS, detect, read
from dexml.data.convert.labeltexts import read_label_texts
from dexml.data.convert.records import Fault, LabelText, Options, Record, Source
from dexml.data.convert.writer import Prepared, Split, check_free, write_folder

__all__ = [
    "FORMATS",
    "Fault",
    "LabelText",
    "Options",
    "Prepared",
    "Record",
    "Source",
    "Split",
    "detect",
    "prepare",
    "write_folder",
]


def prepare(
    source: Any,
    dest: str | Path,
    form: str | None = None,
    *,
    options: Options | None = None,
    labels: str | Path | None = None,
    test: Any = None,
    split: Split | None = None,
    on_error: str = "stop",
) -> Prepared:
    """Writes `source` (a path, a Hub id, a `datasets` object) as the data folder `dest`.

    `form` is a name in FORMATS, found out where it can be; `labels` a file of label texts; `test` a second source of
    the same format that holds the test points. DataError names file, line and mend; then there is no folder.
    """
    check_free(Path(dest))
    options = options or Options()
    opened = read(source, options, form)
    if test is not None:
        held = read(test, options, form)
        opened = replace(opened, records=_joined(opened, held), about=opened.about + held.about)
    if labels is not None:
        opened = replace(opened, label_texts=read_label_texts(Path(labels)))
    return write_folder(opened, dest, split, on_error)


def _joined(train: Source, test: Source) -> Iterator[Record | Fault]:
    held = (record if isinstance(record, Fault) else record._replace(split="tst") for record in test.records)
    return chain(train.records, held)
