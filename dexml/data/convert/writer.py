"""Any stream of records into a data folder that appears only when it is complete and passes every check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dexml.data.convert.points import CODES, Labels, Points
from dexml.data.convert.records import Fault, Faults, LabelText, Record, Source, Unreadable
from dexml.data.convert.split import random_rows, unseen_labels, whole_groups
from dexml.data.dataset import FILTER_FILES, Dataset
from dexml.data.files import DataError

SPLIT_BY = ("rows", "groups", "labels")
Item = TypeVar("Item", Record, LabelText)
TICK = 1000  # records between two moves of the progress bar


@dataclass(frozen=True)
class Split:
    """How test points are drawn when the source has none: this share of the points, by this seed."""

    share: float = 0.2
    by: str = "rows"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise DataError(f"test size {self.share}: it is a share of the points, between 0 and 1")
        if self.by not in SPLIT_BY:
            raise DataError(f"split by {self.by!r}: choose from {', '.join(SPLIT_BY)}")


@dataclass(frozen=True)
class Prepared:
    """The new folder, and what a user should know about it, one line each."""

    path: Path
    notices: list[str]


def write_folder(source: Source, dest: str | Path, split: Split | None = None, on_error: str = "stop") -> Prepared:
    """Writes `source` as the data folder `dest`; DataError, and no folder, if it exists or a record cannot be used.

    on_error "skip" leaves such records out and counts them. In memory are the label names, 8 bytes a point and
    12 a relevant cell; the texts only pass through.
    """
    split, dest, faults = split or Split(), Path(dest), Faults(stop=on_error != "skip")
    with _building(dest) as folder:
        points, final = _read(source, folder, faults)
        relevance = points.relevance.matrix(final)
        codes, how = _codes(points, relevance, split)
        _distribute(folder.parent / "texts", folder / "raw", codes)
        filters = points.filters.matrix(final)
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            sparse.save_npz(folder / f"Y.{CODES[code]}.npz", relevance[rows])
            _write_filters(folder, CODES[code], filters[rows])
        notices = [*faults.told(), how, *Dataset.load(folder).notices]
        facts = {"left_out": faults.count, "notices": notices}
        (folder / "prepared.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Prepared(dest, notices)


def check_free(dest: Path) -> None:
    if dest.exists():
        raise DataError(f"{dest} exists already: remove it, or name another folder")


@contextmanager
def _building(dest: Path) -> Iterator[Path]:
    """A folder of the name of `dest` inside a hidden one beside it; becomes `dest` if the block ends well."""
    check_free(dest)
    work = dest.with_name(f".{dest.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)  # left by a run that was killed
    folder = work / dest.name
    try:
        (folder / "raw").mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{dest}: cannot be made there ({error.strerror}): name another folder") from None
    try:
        yield folder
        folder.rename(dest)
    except DataError as error:
        raise DataError(str(error).replace(str(folder), str(dest))) from None
    except OSError as error:  # a full disk names no file
        raise DataError(f"{dest} was not made: {error.filename or 'writing'}: {error.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _read(source: Source, folder: Path, faults: Faults) -> tuple[Points, NDArray[np.int64]]:
    """All records, their texts in one file; and the final number of each label number."""
    names = folder / "raw" / "Y.ids.txt"
    with ExitStack() as files:
        texts = files.enter_context((folder / "raw" / "Y.txt").open("wb"))
        labels = Labels(texts, files.enter_context(names.open("wb")), source.closed)
        for label in source.label_texts or ():
            _attempt(labels.add, label, faults)
        known = len(labels)
        points = Points(files.enter_context((folder.parent / "texts").open("wb")), labels)
        _read_points(source, points, faults)
        final = labels.finish(known)
    if not labels.named:
        names.unlink()
    if not len(points.splits):
        raise DataError("the source has no records" + "".join(f"; {line}" for line in faults.told()))
    return points, final


def _read_points(source: Source, points: Points, faults: Faults) -> None:
    from dexml.training.progress import bar

    with bar("reading", source.about) as tick:
        for number, record in enumerate(source.records, start=1):
            _attempt(points.add, record, faults)
            if number % TICK == 0:
                tick(TICK)


def _attempt(add: Callable[[Item], None], item: Item | Fault, faults: Faults) -> None:
    if isinstance(item, Fault):
        faults.take(item)
        return
    try:
        add(item)
    except Unreadable as error:
        faults.take(Fault(item.where, str(error)))


def _codes(points: Points, relevance: sparse.csr_matrix, split: Split) -> tuple[NDArray[np.int8], str]:
    """The split of every point, a place in CODES, drawn if the source has no test points; and how that was done."""
    codes = np.frombuffer(points.splits, np.int8).copy()
    if (codes == CODES.index("tst")).any():
        how = "the source's own"
    else:
        rows = np.flatnonzero(codes == CODES.index("trn"))
        codes[rows[_drawn(points, relevance, rows, split)]] = CODES.index("tst")
        how = f"{split.share:g} of the points are test points, drawn by {split.by} with seed {split.seed}"
    for name in ("trn", "tst"):
        if not (codes == CODES.index(name)).any():
            raise DataError(f"no points for {name} ({how}): a data folder needs training and test points")
    return codes, f"split: {how}"


def _drawn(points: Points, relevance: sparse.csr_matrix, rows: NDArray[np.int64], split: Split) -> NDArray[np.bool_]:
    if split.by == "labels":
        return unseen_labels(relevance[rows], split.share, split.seed)
    if split.by == "rows":
        return random_rows(len(rows), split.share, split.seed)
    groups = np.frombuffer(points.groups, np.int64)[rows]
    if (groups < 0).all():
        raise DataError("split by groups: the source names no groups: give --group-column")
    return whole_groups(groups, split.share, split.seed)


def _distribute(texts: Path, raw: Path, codes: NDArray[np.int8]) -> None:
    """Each line of `texts` into the file of its split."""
    with ExitStack() as files:
        lines = files.enter_context(texts.open("rb"))
        present = np.unique(codes).tolist()
        out = {code: files.enter_context((raw / f"{CODES[code]}_X.txt").open("wb")) for code in present}
        for line, code in zip(lines, codes.tolist(), strict=True):
            out[code].write(line)
    texts.unlink()


def _write_filters(folder: Path, name: str, filters: sparse.csr_matrix) -> None:
    if filters.nnz and name in FILTER_FILES:
        pairs = filters.tocoo()
        lines = (f"{row} {column}\n" for row, column in zip(pairs.row.tolist(), pairs.col.tolist(), strict=True))
        (folder / FILTER_FILES[name]).write_text("".join(lines), encoding="utf-8")
