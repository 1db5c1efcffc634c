"""What every reader yields and the writer takes: records, or faults that name the place and the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dexml.data.files import DataError

SPLITS = {
    **dict.fromkeys(("trn", "train", "training"), "trn"),
    **dict.fromkeys(("tst", "test", "testing"), "tst"),
    **dict.fromkeys(("dev", "val", "valid", "validation"), "dev"),
}
LINE_ENDS = re.compile("\r\n|[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]")
ENDS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff"  # white space, and a byte-order mark


class Record(NamedTuple):
    """One point: its text and the names of its labels, as the source spells them."""

    text: str
    labels: Sequence[str]
    split: str = "trn"
    """trn, tst or dev. When a source has no tst at all, the writer draws it from trn."""
    group: str = ""
    """Points of one group stay in one split; an empty one is no group."""
    relevance: Sequence[float] | None = None
    """One a label; None means 1 for each. Labels up to 1e-8 are dropped."""
    filtered: Sequence[str] = ()
    """Labels never to be predicted for this point."""
    where: str = ""
    """`file:line`, told when the record cannot be used."""


class LabelText(NamedTuple):
    name: str
    text: str
    where: str = ""


class Fault(NamedTuple):
    """Something that cannot be read: where, why, and the mend."""

    where: str
    reason: str


class Unreadable(Exception):
    """The reason why one record cannot be used; whoever knows the place makes it a Fault."""


@dataclass(frozen=True)
class Source:
    """Streams of one source, each read once."""

    records: Iterator[Record | Fault]
    about: int = 0
    """How many records to expect, for the progress bar."""
    label_texts: Iterator[LabelText | Fault] | None = None
    """The order of the labels, with their texts; None: sorted by name, the name is the text."""
    closed: bool = False
    """Is a label that has no label text a fault?"""


@dataclass(frozen=True)
class Options:
    """How to read a source; each format uses what applies to it."""

    text_columns: Sequence[str] = ()
    label_column: str = ""
    delimiter: str | None = None
    split_column: str = ""
    group_column: str = ""
    vocabulary: Path | None = None


@dataclass
class Faults:
    """Stops at the first fault, or counts them and keeps the first places."""

    stop: bool = True
    count: int = 0
    first: list[Fault] = field(default_factory=list)

    def take(self, fault: Fault) -> None:
        if self.stop:
            raise DataError(f"{fault.where}: {fault.reason} (or leave such records out: --on-error skip)")
        self.count += 1
        if len(self.first) < 5:
            self.first.append(fault)

    def told(self) -> list[str]:
        """Lines for the user; none when nothing was left out."""
        if not self.count:
            return []
        more = ["  ..."] if self.count > len(self.first) else []
        return [f"left out {self.count:,} records:", *(f"  {f.where}: {f.reason}" for f in self.first), *more]


def fold(text: str) -> str:
    """`text` as one line: tabs and all that may end a line become spaces, white space at its ends is stripped."""
    return LINE_ENDS.sub(" ", text).strip(ENDS)


def encoded(text: str) -> bytes:
    """UTF-8 of `text`. Readers decode with surrogateescape, so a bad byte comes to light here, with its record."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            mend = "convert the file, for instance with `iconv -f latin1 -t utf-8`"
            raise Unreadable(f"not valid UTF-8 (byte 0x{code - 0xDC00:02x}): {mend}") from None
        raise Unreadable(f"character \\u{code:04x} is half of a surrogate pair: remove it") from None


def split_named(name: str) -> str:
    """trn, tst or dev for what sources call them."""
    split = SPLITS.get(name.strip().lower())
    if split is None:
        raise Unreadable(f"split {name!r} is none of {', '.join(SPLITS)}")
    return split
