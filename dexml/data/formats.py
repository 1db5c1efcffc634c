"""Data sets that need no download: built from the data that installed Python packages carry."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import random
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import sparse

from dexml.data.files import DataError
from dexml.data.folders import new_folder
from dexml.data.package import package_root

log = logging.getLogger(__name__)

ICONCLASS_NAME = "Iconclass-KW-en"
ICONCLASS_VERSION = "0.29"
SEED = 13
FILES = ("raw/trn_X.txt", "raw/tst_X.txt", "raw/Y.txt", "Y.trn.npz", "Y.tst.npz", "stats.json")

Points = list[tuple[str, list[str]]]  # text, its sorted labels


def prepare_iconclass(root: str | Path) -> Path:
    """Builds `root`/Iconclass-KW-en from the `iconclass` package (texts to keywords, data CC0) and returns its path.

    A complete folder is left as it is; a new one appears only when it is complete. DataError if the package is missing.
    """
    return build_iconclass(Path(root) / ICONCLASS_NAME)


def build_iconclass(folder: Path) -> Path:
    """The same under a name of the caller's choice."""
    return build(folder, lambda: _iconclass_points())


def build(folder: Path, make: Callable[[], tuple[Points, dict[str, object]]]) -> Path:
    """A data folder of the points that `make` returns with facts about them, every fifth drawn for the test."""
    if folder.exists():
        return _complete(folder)
    points, facts = make()
    random.Random(SEED).shuffle(points)
    test = -(-len(points) // 5)
    with new_folder(folder) as building:
        _write_folder(building, folder.name, points[test:], points[:test], facts)
    return folder


def _complete(folder: Path) -> Path:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} exists but lacks {', '.join(missing)}: remove the folder, then prepare it again")
    return folder


def _iconclass_points() -> tuple[Points, dict[str, object]]:
    """Points in the order of the file, and what was left out."""
    archive = package_root("iconclass", f"iconclass=={ICONCLASS_VERSION}") / "data.zip"
    version = importlib.metadata.version("iconclass")
    if version != ICONCLASS_VERSION:
        log.warning("iconclass %s is installed, the published figures are for %s", version, ICONCLASS_VERSION)
    keywords: defaultdict[str, set[str]] = defaultdict(set)
    for notation, keyword in _pairs(archive, "kw_en.txt"):
        keywords[notation].add(keyword)
    texts = list(_pairs(archive, "txt_en.txt"))
    united: dict[str, set[str]] = {}
    used = [(notation, text) for notation, text in texts if notation in keywords]
    for notation, text in used:
        united.setdefault(text, set()).update(keywords[notation])
    facts: dict[str, object] = {
        "source": f"Python package iconclass {version}, data CC0 1.0",
        "seed": SEED,
        "notations_without_keywords": len(texts) - len(used),
        "texts_merged": len(used) - len(united),
    }
    return [(text, sorted(labels)) for text, labels in united.items()], facts


def _pairs(archive: Path, member: str) -> Iterator[tuple[str, str]]:
    """Lines `notation|value` with white space folded, those without a value left out."""
    try:
        with zipfile.ZipFile(archive) as file:
            text = file.read(member).decode("utf-8")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{archive}: cannot read {member} ({error}): install iconclass=={ICONCLASS_VERSION} again"
        ) from None
    for line in text.split("\n"):
        notation, _, value = line.partition("|")
        if value.strip():
            yield notation.strip(), " ".join(value.split())


def _write_folder(folder: Path, name: str, train: Points, test: Points, facts: dict[str, object]) -> None:
    labels = sorted({label for _, names in train + test for label in names})
    ids = {label: i for i, label in enumerate(labels)}
    (folder / "raw").mkdir(parents=True)
    _write_lines(folder / "raw" / "Y.txt", labels)
    matrices = {}
    for split, points in (("trn", train), ("tst", test)):
        _write_lines(folder / "raw" / f"{split}_X.txt", [text for text, _ in points])
        matrices[split] = _relevance(points, ids)
        sparse.save_npz(folder / f"Y.{split}.npz", matrices[split])
    stats = {"dataset": name, **_stats(train, test, matrices["trn"], labels), **facts}
    _write_lines(folder / "stats.json", [json.dumps(stats, indent=1)])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _relevance(points: Points, ids: dict[str, int]) -> sparse.csr_matrix:
    indices = np.array([ids[label] for _, labels in points for label in labels], dtype=np.int64)
    indptr = np.cumsum([0, *(len(labels) for _, labels in points)])
    return sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(points), len(ids)))


def _stats(train: Points, test: Points, trn: sparse.csr_matrix, labels: list[str]) -> dict[str, object]:
    points = train + test
    return {
        "train": len(train),
        "test": len(test),
        "labels": len(labels),
        "avg_labels_per_point": round(sum(len(names) for _, names in points) / len(points), 3),
        "labels_without_train_point": int((np.bincount(trn.indices, minlength=len(labels)) == 0).sum()),
        "avg_words_per_text": round(sum(len(text.split()) for text, _ in points) / len(points), 2),
        "avg_words_per_label_text": round(sum(len(label.split()) for label in labels) / len(labels), 2),
    }
