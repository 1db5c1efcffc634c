"""Lines of a UTF-8 file, plain or .gz, with their numbers."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dexml.data.convert.records import SPLITS
from dexml.data.files import DataError

SAMPLE = 1 << 20
NUMBERED = re.compile(r"-\d[\w-]*$")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line with its newline). Only a newline ends a line; other bytes than UTF-8 become surrogates."""
    with _opened(path) as (file, _):
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{path} is UTF-16: convert it with `iconv -f utf-16 -t utf-8`")
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")


def stripped_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Like `numbered_lines`, without the line ends."""
    return ((number, line.rstrip("\r\n")) for number, line in numbered_lines(path))


def first_line(path: Path) -> str:
    """The first line, without its end; empty if there is none."""
    return next((line for _, line in stripped_lines(path)), "")


def about_lines(path: Path) -> int:
    """How many lines the file has, estimated from its first megabyte."""
    with _opened(path) as (file, raw):
        lines = file.read(SAMPLE).count(b"\n") + 1
        return lines * path.stat().st_size // max(1, raw.tell())


def split_files(folder: Path, suffix: str) -> list[tuple[Path, str]]:
    """(file, split) of the files `train<suffix>`, `test<suffix>` and the like, by name; `train-00001<suffix>`, too."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: this format is a folder of files")
    files = sorted(file for file in folder.iterdir() if file.name.endswith(suffix) and file.is_file())
    stems = [NUMBERED.sub("", file.name.removesuffix(suffix).lower()) for file in files]
    return [(file, SPLITS[stem]) for file, stem in zip(files, stems, strict=True) if stem in SPLITS]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file to read from, and the one on the disk, which tells how many bytes of it were read."""
    try:
        with path.open("rb") as raw:
            yield (gzip.open(raw) if path.suffix == ".gz" else raw), raw  # type: ignore[misc]  # noqa: SIM115
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file ({error}): copy it again") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: this format is one file") from None
