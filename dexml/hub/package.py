"""What leaves the house: the files of a bundle, by their names there, with its model card and its metrics."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Unpack

import numpy as np
from safetensors.numpy import save_file

from dexml.data.files import DataError, sha256
from dexml.data.hubfolder import Download
from dexml.hub.bundle import EMBEDDINGS, LABELS, Bundle, check_parts, read_embeddings
from dexml.hub.card import model_card
from dexml.hub.cardtext import Given
from dexml.hub.labelset import CHANGES, LabelSet
from dexml.hub.source import FILES, bundle_folder
from dexml.report.run import Run

Files = dict[str, Path | bytes]
CARD, METRICS = "README.md", "metrics.json"
NOT_PARTS = ("manifest.json", CHANGES)
FOLDERS = re.compile(r"index|above|\d+_\w+")
"""of the label index, of the model that a level of a tree builds on, of sentence-transformers' modules"""


@contextmanager
def packed(
    source: str | Path,
    name: str,
    given: Given,
    on_hub: bool = False,
    new_labels: Sequence[str] = (),
    **download: Unpack[Download],
) -> Iterator[Files]:
    """The files of a run, a bundle or a Hub id, under the name by which others will load them.

    Label changes and new labels are worked in. A card that is there stays; that of a run is written anew.
    Raises:
        DataError, LabelIndexError, ConfigError, HubError: as of `Bundle.load`.
    """
    folder = bundle_folder(source, **download)
    check_parts(folder)
    run = _run_of(Path(source))
    files = _parts(folder)
    with tempfile.TemporaryDirectory() as place:
        if new_labels or (folder / CHANGES).exists():
            labels = LabelSet(Bundle.load(folder))
            labels.add(new_labels)
            files = _with_changes(folder, labels.bundle, Path(place), files)
        if run is not None and (run.path / METRICS).exists():
            files[METRICS] = run.path / METRICS
        if CARD not in files or run is not None:
            files[CARD] = model_card(folder, name, run, given, on_hub).encode()
        yield dict(sorted(files.items()))


def write_package(files: Mapping[str, Path | bytes], folder: Path) -> None:
    """Writes the files into the new `folder`, which appears when all are there.

    Raises:
        DataError: the folder is there already, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name another folder, or remove it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, content in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content) if isinstance(content, bytes) else shutil.copyfile(content, path)
        partial.replace(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written there ({error.strerror}): name another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def size_of(content: Path | bytes) -> int:
    """Bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _run_of(source: Path) -> Run | None:
    return Run.read(source) if (source / "best").is_dir() else None


def _parts(folder: Path) -> Files:
    """The files of a bundle, and no others that lie there, such as a service's training texts."""
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {name: path for name, path in files.items() if name not in NOT_PARTS and _is_part(name)}


def _is_part(name: str) -> bool:
    top, _, rest = name.partition("/")
    known = bool(FOLDERS.fullmatch(top)) if rest else True
    return known and any(fnmatch(name, wanted) for wanted in FILES)


def _with_changes(folder: Path, bundle: Bundle, place: Path, files: Files) -> Files:
    """The labels of `bundle` in files of `place`; a label taken away leaves a blank line and no vector."""
    index = bundle.index
    assert index is not None
    gone = set(np.setdiff1d(np.arange(len(bundle.labels)), index.ids).tolist())
    with (place / LABELS).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\n" if i in gone else f"{text}\n" for i, text in enumerate(bundle.labels))
    exported = read_embeddings(folder, slice(None))
    label_LD = np.zeros((len(bundle.labels), exported.shape[1]), np.float32)
    label_LD[: len(exported)] = exported
    added = index.ids[index.ids >= len(exported)]
    label_LD[added] = bundle.encoder.encode([bundle.labels[int(i)] for i in added])
    label_LD[sorted(gone)] = 0
    save_file({"labels": label_LD}, place / EMBEDDINGS)
    index.meta["sha256"] = {**index.meta["sha256"], LABELS: sha256(place / LABELS)}
    index.save(place / "index")
    kept = {name: path for name, path in files.items() if not name.startswith("index/")}
    return kept | {str(p.relative_to(place)): p for p in place.rglob("*") if p.is_file()}
