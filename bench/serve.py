"""What the service answers a second, and how long its clients wait, beside a bare loop of encode and search.

    python bench/serve.py --model Results/DEXML/Iconclass-KW-en/quickstart/best --data Datasets/Iconclass-KW-en
    python bench/serve.py --model ... --data ... --clients 1 8 --seconds 3 --repeats 1     # a laptop, half a minute
    python bench/serve.py --model ... --data ... --soak 300     # clients killed and started again, labels changed

The texts are those of the test set, one a request. Bare loops of this process (texts one by one, and 64 at a time) and
loads of the service, a process of its own, take turns; figures are medians over the turns. The clients run on the same
cores as the service.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # not this folder: its tokenize.py has the name of a module of the standard library
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from bench import report
from bench.common import BenchError, positive, write_json
from bench.load import load
from dexml.data.textfile import Lines
from dexml.hub.bundle import Bundle
from dexml.serve.command import TOKEN

TEXTS, K, BATCH = 4096, 100, 64  # K: as deep as the service searches
SECRET = "a-token-of-the-bench"
FILE = Path("raw") / "tst_X.txt"


def main(argv: list[str], description: str) -> int:
    """Exit status 1 if a request of a steady client failed."""
    args = parse(argv, description)
    texts = list(Lines(args.data / FILE)[:TEXTS])
    with served(args.model) as (process, port):
        figures = soak(process, port, args) if args.soak else measure(process, port, texts, args)
    print(render_soak(figures) if args.soak else render(figures))
    if args.json:
        write_json(args.json, {"serve": figures, "settings": report.settings(args)})
    return int(bool(figures.get("errors")))


def measure(process: psutil.Process, port: int, texts: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Of each side: texts a second, CPU milliseconds a text and, of the clients, the waits in milliseconds.

    CPU time is that of the loop, or of the service without its clients.
    """
    bundle = Bundle.load(args.model)
    sides = {f"bare loop, {n} at a time": (lambda n=n: _bare(bundle, texts, n, args.seconds)) for n in (1, BATCH)}
    for n in args.clients:
        sides[f"service, {n} clients"] = lambda n=n: _loaded(process, port, n, texts, args.seconds)
    for side in sides.values():  # a turn that does not count: what is built at first use
        side()
    turns = report.take_turns(sides, args.repeats)
    return {name: {key: median(turn[key] for turn in found) for key in found[0]} for name, found in turns.items()}


def soak(process: psutil.Process, port: int, args: argparse.Namespace) -> dict[str, Any]:
    """A steady client of 4 connections beside others that are killed after a while and started again."""
    steady = _client(args, port, 4, args.soak)
    time.sleep(min(10, args.soak / 5))  # what grows at first use has grown
    memory, kills, changes, end = process.memory_info().rss, 0, 0, time.monotonic() + args.soak * 0.95
    rng = random.Random(0)
    while time.monotonic() < end and steady.poll() is None:
        other = _client(args, port, rng.choice([1, 8, 32]), 60)
        time.sleep(rng.uniform(2, 5))
        other.kill()
        other.wait()
        kills += 1
        changes += _change_labels(port, f"label of the bench {kills}")
    out, _ = steady.communicate(timeout=args.soak + 60)
    statuses = Counter(json.loads(out))
    time.sleep(1)
    return {
        "seconds": args.soak,
        "kills": kills,
        "label_changes": changes,
        "answers": statuses,
        "errors": sum(n for status, n in statuses.items() if status not in ("200", "429")),
        "memory_MB": [round(memory / report.MB), round(process.memory_info().rss / report.MB)],
        "waiting": next(float(line.split()[1]) for line in _get(port, "/metrics") if line.startswith("dexml_waiting")),
    }


@contextmanager
def served(model: Path) -> Iterator[tuple[psutil.Process, int]]:
    """The service of a copy of the model, and its port."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(model, Path(folder) / "model")
        words = [sys.executable, "-m", "dexml.cli", "serve", str(copy), "--port", "0"]
        environment = {**os.environ, TOKEN: SECRET}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if "http://" not in line:
                    raise BenchError(f"the service did not start: {line}")
                yield psutil.Process(process.pid), int(line.split("http://127.0.0.1:")[1].split()[0])
            finally:
                process.terminate()


def render(figures: dict[str, Any]) -> str:
    head = ["", "texts/s", "CPU ms/text", "p50 ms", "p99 ms"]
    keys = ("rate", "cpu", "p50", "p99")
    return report.table(head, [[name, *(report.shown(row.get(key)) for key in keys)] for name, row in figures.items()])


def render_soak(figures: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in figures.items())


def _bare(bundle: Bundle, texts: list[str], n: int, seconds: float) -> dict[str, float]:
    begin, cpu, done = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        at = done % (len(texts) - n)
        bundle.search(texts[at : at + n], K)
        done += n
    return {"rate": done / passed, "cpu": (time.process_time() - cpu) * 1000 / done}


def _loaded(process: psutil.Process, port: int, clients: int, texts: list[str], seconds: float) -> dict[str, float]:
    before = sum(process.cpu_times()[:2])
    seen = load(port, clients, seconds, texts)
    cpu = sum(process.cpu_times()[:2]) - before
    wrong = {status: n for status, n in seen.statuses.items() if status != "200"}
    if wrong:
        raise BenchError(f"not every request was answered: {wrong}")
    p50, p99 = np.percentile(seen.waits, (50, 99)) * 1000
    rate, done = len(seen.waits) / seen.seconds, len(seen.waits)
    return {"rate": rate, "cpu": cpu * 1000 / done, "p50": float(p50), "p99": float(p99)}


def _client(args: argparse.Namespace, port: int, connections: int, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, Path(__file__).with_name("load.py"), str(port), str(connections), str(seconds)]
    return subprocess.Popen([*words, args.data / FILE], stdout=subprocess.PIPE, text=True)


def _change_labels(port: int, text: str) -> int:
    """Adds a label and removes it: 2 changes."""
    head = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
    add = urllib.request.Request(
        f"http://127.0.0.1:{port}/labels", json.dumps({"labels": [text]}).encode(), head, method="POST"
    )
    with urllib.request.urlopen(add, timeout=60) as answer:
        (new,) = json.load(answer)["ids"]
    remove = urllib.request.Request(f"http://127.0.0.1:{port}/labels?id={new}", headers=head, method="DELETE")
    with urllib.request.urlopen(remove, timeout=60):
        return 2


def _get(port: int, path: str) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode().splitlines()


def parse(argv: list[str], description: str) -> argparse.Namespace:
    """BenchError for a model or data folder that is not there."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a bundle; it is copied, not changed")
    parser.add_argument("--data", type=Path, required=True, help="a data folder, for its test texts")
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10, help="of a turn")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1)
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    for path in (args.model / "modules.json", args.data / FILE):
        if not path.is_file():
            raise BenchError(f"{path} is missing")
    return args


if __name__ == "__main__":
    report.run_cli(main, str(__doc__))
