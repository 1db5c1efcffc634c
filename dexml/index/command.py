"""`dexml index`: another index over the label embeddings of a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexml.index.index import LabelIndex
from dexml.index.kinds import KINDS, MEANINGS
from dexml.index.rows import LabelIndexError
from dexml.index.search import Scores
from dexml.index.speed import ALONE, milliseconds_and_gains
from dexml.index.tuning import recall_at, tune

EMBEDDINGS = "label_embeddings.safetensors"
MOST_QUERIES = 2000


def index_command(words: Sequence[str]) -> None:
    """Builds, tunes, saves, and compares with the flat index. What cannot be is said before anything is written."""
    args = _parse(words)
    folder = args.bundle / "best" if (args.bundle / "best").is_dir() else args.bundle
    present, label_SD = _labels_of(folder)
    queries, said = _queries(folder, args.queries, label_SD)
    given: Any = {name: getattr(args, name) for name in MEANINGS if getattr(args, name) is not None}
    k = min(args.k, len(label_SD))
    flat = LabelIndex.build(label_SD, present.ids)
    exact_ids = flat.search(queries, k)[0]
    index = LabelIndex.build(label_SD, present.ids, args.kind, present.meta, **given)
    index.meta.pop("tuning", None)  # of the index that was there
    if args.recall is not None:
        index.meta["tuning"] = tune(index, queries, args.recall, k, exact_ids).to_dict() | {"queries": said}
    target = args.out or folder / "index"
    index.save(target)
    print(f"{target}: {len(index):,} labels, {args.kind} {_shown(index.parameters)}; measured with {said}")
    recalls = [recall_at(each.search(queries, k)[0], exact_ids, k) for each in (flat, index)]
    print(_table([flat, index], recalls, queries, k))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dexml index", description="Build another index over a bundle's labels.")
    parser.add_argument("bundle", type=Path, help="a run, or the best/ folder in it")
    parser.add_argument("--kind", choices=list(KINDS), required=True)
    parser.add_argument("--recall", type=float, help="share of the exact labels to find: sets nprobe or efSearch")
    parser.add_argument("--k", type=int, default=100, help="labels that are searched for (default: 100)")
    parser.add_argument("--queries", type=Path, help="texts, one a line, to measure with (default: the labels)")
    parser.add_argument("--out", type=Path, help="folder of the new index (default: the bundle's, replacing its index)")
    for name, text in MEANINGS.items():
        parser.add_argument(f"--{name}", type=int, help=text)
    args = parser.parse_args(words)
    if args.k < 1:
        parser.error(f"--k is {args.k}: expected 1 or more")
    return args


def _labels_of(folder: Path) -> tuple[LabelIndex, Scores]:
    """The index that the bundle has, and the embeddings [count, D] of the labels it holds, in the order of its ids."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / EMBEDDINGS
    if not path.is_file():
        raise LabelIndexError(f"{path} is missing: {folder} is no bundle; training writes one to <run>/best")
    present = LabelIndex.load(folder / "index")
    try:
        label_LD = load_file(path)["labels"]
    except (SafetensorError, KeyError) as error:
        raise LabelIndexError(f"{path} does not hold 'labels' ({error}): export the bundle again") from error
    if label_LD.ndim != 2 or label_LD.shape[1] != present.width:
        raise LabelIndexError(f"{path} has shape {label_LD.shape}, the index is {present.width} wide: export it again")
    if not len(present):
        raise LabelIndexError(f"{folder / 'index'} holds no labels")
    if present.ids[-1] >= len(label_LD):
        raise LabelIndexError(
            f"{folder / 'index'} holds label {present.ids[-1]}, {path} has {len(label_LD)} rows: "
            "embeddings of labels added later belong there too"
        )
    return present, label_LD[present.ids]


def _queries(folder: Path, texts: Path | None, label_SD: Scores) -> tuple[Scores, str]:
    """Embeddings [N, D] to measure with, and what they are."""
    if texts is None:
        rows = np.unique(np.linspace(0, len(label_SD) - 1, min(MOST_QUERIES, len(label_SD))).astype(np.int64))
        return label_SD[rows], f"{len(rows):,} of the label embeddings"
    from dexml.data.textfile import Lines
    from dexml.encoders.encoder import Encoder

    lines = [line for line in Lines(texts) if line]
    if not lines:
        raise LabelIndexError(f"{texts} has no text to measure with")
    return Encoder.load(folder).encode(lines), f"{len(lines):,} texts of {texts}"


def _shown(parameters: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def _table(indexes: Sequence[LabelIndex], recalls: Sequence[float], queries: Scores, k: int) -> str:
    """A line an index: what it finds, milliseconds a query among many and alone, megabytes, times faster than flat."""
    head = ("kind", f"recall@{k}", "ms/query", "x flat", "ms alone", "x flat", "MB")
    many = milliseconds_and_gains(indexes, queries, k)
    alone = milliseconds_and_gains(indexes, queries[:ALONE], k, block=1)
    lines = ["".join(f"{name:>12}" for name in head)]
    for index, recall, (ms, gain), (ms_alone, gain_alone) in zip(indexes, recalls, many, alone, strict=True):
        figures = f"{recall:12.4f}{ms:12.3f}{gain:12.2f}{ms_alone:12.3f}{gain_alone:12.2f}{index.nbytes / 1e6:12.1f}"
        lines.append(f"{index.kind:>12}{figures}")
    return "\n".join(lines)
