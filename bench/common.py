"""What benches that run a peer beside dexml share: sides that take turns, spreads and ratios, data for the peer.

A side is a process of its own that keeps its model and waits. Sides work in turns, one at a time, round after round:
what else the machine does then meets them alike, and ratios are taken within a round. No torch here: a child's peak
memory counts that of the process it was started from.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dexml.config import CHECKOUT, Config, load_config
from dexml.data.package import resolve_model
from dexml.machine import cores

if TYPE_CHECKING:
    from dexml.data.tokens import Tokens

ADAPTER = Path(__file__).parent / "peer" / "dexml_adapter.py"
CONFIG = CHECKOUT / "configs/EURLEX57K-Titles/dist-de-all_decoupled-softmax.yaml"
BLOCK = 1 << 16  # rows written together


class BenchError(ValueError):
    """A side cannot run, or the two sides would not do the same work."""


# --- the command line and the config ---


def positive(text: str) -> int:
    """An argument type: a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: a whole number of at least 1 is needed")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder of the data set (default: that of the config)")
    parser.add_argument("--config", type=Path, default=CONFIG, help="YAML file with every other setting")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument(
        "--threads", type=positive, default=cores(), help="CPU threads of each side (default: all cores)"
    )
    parser.add_argument("--peer", type=Path, help="checkout of nilesh2797/DEXML to run beside dexml")
    parser.add_argument("--peer-python", default="python3", help="Python with torch and transformers 4 for the peer")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)


def bench_config(args: argparse.Namespace, file: Path, overrides: Sequence[str], **forced: Any) -> Config:
    """The config of a side: a file, the user's `--key value` words, the data folder, and what the bench prescribes."""
    words = list(overrides)
    if args.data:
        data = args.data.absolute()
        forced |= {"data_root": data.parent, "dataset": data.name}
    forced |= {"num_threads": args.threads}
    return load_config([file], words + [word for key, value in forced.items() for word in (f"--{key}", str(value))])


def check_comparable(cfg: Config) -> None:
    """BenchError for a setting that the peer cannot run on a CPU, or that it understands differently."""
    wanted: dict[str, tuple[Any, ...]] = {
        **{"net": ("dist-de-all",), "tf_pooler": ("cls", "mean"), "bottleneck_dim": (0,), "grad_accum": (1,)},
        **{"max_grad_norm": (0,), "weight_decay": (0.01,)},
    }
    for key, values in wanted.items():
        if getattr(cfg, key) not in values:
            raise BenchError(
                f"{key} is {getattr(cfg, key)}: the peer needs {' or '.join(map(str, values))} (give --{key})"
            )


# --- sides ---


class Side(contextlib.AbstractContextManager["Side"]):
    """A process that answers requests as `serve` of dexml_turns does; what it prints goes to a file."""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path, threads: int) -> None:
        self.name, self.log = name, folder / f"{name.replace(' ', '-')}.log"
        number = str(threads)
        env = os.environ | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "CUDA_VISIBLE_DEVICES": ""}
        env |= {"PYTHONDONTWRITEBYTECODE": "1"}  # nothing is written into the peer's checkout
        words = [str(word) for word in command]
        try:
            with self.log.open("w") as log:
                pipe = subprocess.PIPE
                self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, env=env, text=True)
        except OSError as error:
            raise BenchError(f"{name}: {words[0]} cannot be started ({error.strerror})") from error

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one request; BenchError with the end of its log if the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its log says why
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            end = "\n".join(self.log.read_text(errors="replace").strip().splitlines()[-12:])
            raise BenchError(f"{self.name} ended with status {self.process.wait()}:\n{end}")
        return json.loads(line)

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def peer_side(args: argparse.Namespace, cfg: Config, folder: Path) -> Side:
    """The peer with the settings of `cfg`, on the data that `export` left in `folder`."""
    places = {"tf": resolve_model(cfg.tf), "tokenizer": resolve_model(cfg.tokenizer_name)}
    extra = {"peer": str(args.peer.absolute()), "folder": str(folder)}
    settings = folder / "peer.json"
    settings.write_text(json.dumps(cfg.to_dict() | places | extra), encoding="utf-8")
    return Side("peer", [args.peer_python, ADAPTER, settings], folder, args.threads)


def check_peer(args: argparse.Namespace) -> None:
    """BenchError unless the path is a checkout of the peer."""
    absent = [name for name in ("nets.py", "losses.py", "datasets.py") if not (args.peer / name).is_file()]
    if absent:
        raise BenchError(f"--peer {args.peer} lacks {', '.join(absent)}: clone nilesh2797/DEXML and name its folder")


# --- data for the peer ---


def export(
    folder: Path, queries: Tokens, labels: Tokens, relevance: Any, batches: Iterable[NDArray[np.int64]], max_len: int
) -> None:
    """Token ids in the peer's padded format, the relevance [N, L] of the points and the points of each batch."""
    from scipy.sparse import save_npz

    _write_padded(folder / "x.dat", queries, max_len)
    _write_padded(folder / "y.dat", labels, max_len)
    save_npz(folder / "Y.npz", relevance)
    parts = list(batches)
    np.save(folder / "points.npy", np.concatenate(parts), allow_pickle=False)
    np.save(folder / "offsets.npy", np.cumsum([0, *map(len, parts)]), allow_pickle=False)


def _write_padded(path: Path, tokens: Tokens, max_len: int) -> None:
    path.with_name(f"{path.name}.meta").write_text(f"{len(tokens)} {max_len} int32\n")
    with path.open("wb") as file:
        for begin in range(0, len(tokens), BLOCK):
            ids, lengths = tokens.gather(np.arange(begin, min(begin + BLOCK, len(tokens))))
            block = np.full((len(lengths), max_len), tokens.pad_id, np.int32)
            block[np.arange(max_len) < lengths[:, None]] = ids
            file.write(block.tobytes())


# --- figures ---


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and all values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}


def ratios(peer: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Spread of peer / ours, round by round: how many times less ours takes."""
    return spread([theirs / own for theirs, own in zip(peer, ours, strict=True)])


def compare_gradients(ours: Path, peer: Path) -> dict[str, float]:
    """Cosine and ratio of lengths (ours / peer) of two whole gradients, .npz files of arrays by parameter name.

    Raises:
        BenchError: the files hold different parameters.
    """
    with np.load(ours, allow_pickle=False) as a, np.load(peer, allow_pickle=False) as b:
        apart = sorted(set(a.files) ^ set(b.files))
        if apart:
            raise BenchError(f"the gradients hold different parameters: {', '.join(apart[:5])} ({len(apart)} in all)")
        pairs = ((a[name].astype(np.float64), b[name].astype(np.float64)) for name in a.files)
        dot, aa, bb = np.sum([(np.vdot(x, y), np.vdot(x, x), np.vdot(y, y)) for x, y in pairs], axis=0)
    return {"cosine": float(dot / np.sqrt(aa * bb)), "length": float(np.sqrt(aa / bb))}


def write_json(path: Path, figures: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
