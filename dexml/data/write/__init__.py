"""From a data folder into the formats of the field, texts streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dexml.data.dataset import FILTER_FILES, Dataset
from dexml.data.files import DataError
from dexml.data.folders import check_free, new_folder
from dexml.data.write.beir import write_beir
from dexml.data.write.hf import write_hf
from dexml.data.write.source import WriteSource
from dexml.data.write.tables import write_csv, write_libmultilabel

__all__ = ["WRITERS", "convert"]

WRITERS: dict[str, Callable[[WriteSource, Path], None]] = {
    "hf": write_hf,
    "beir": write_beir,
    "libmultilabel": write_libmultilabel,
    "csv": write_csv,
}


def convert(folder: str | Path, dest: str | Path, to: str) -> Path:
    """Writes the data folder in the format `to` as the new folder `dest`, which appears when it is complete.

    In memory are the relevance and the label texts. Filter files are copied beside. DataError for a folder that
    training would refuse, a `dest` that holds something, an unknown format, or one that cannot hold the data.
    """
    if to not in WRITERS:
        raise DataError(f"no format {to!r}: choose from {', '.join(WRITERS)}")
    dest = Path(dest)
    check_free(dest)
    source = WriteSource.open(Dataset.load(folder))
    with new_folder(dest) as building:
        WRITERS[to](source, building)
        for name in FILTER_FILES.values():
            if (source.dataset.path / name).is_file():
                (building / name).write_bytes((source.dataset.path / name).read_bytes())
    return dest
