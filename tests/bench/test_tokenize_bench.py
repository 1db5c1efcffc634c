"""bench/tokenize.py on toy data, with a peer of twenty lines; the comparing of ids and the measuring of a child."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench.common import BenchError
from bench.report import Child, digits, run_child, shown, table, take_turns
from bench.tokenizing import Comparison, compare_ids, describe, figures
from dexml.data.store import DatStore, PartialTokens, TokenInfo, TokenStore, write_store
from tests.helpers.datasets import make_tokenizer, make_toy, write_dat
from tests.helpers.processes import ROOT

PEER_SCRIPT = """
import argparse
import numpy as np
from transformers import AutoTokenizer

parser = argparse.ArgumentParser()
for name, kind in (("data-path", str), ("tf-max-len", int), ("tf-token-type", str), ("num-threads", int)):
    parser.add_argument(f"--{name}", type=kind)
args = parser.parse_args()
lines = [line.strip() for line in open(args.data_path, encoding="utf-8")]
tokenizer = AutoTokenizer.from_pretrained(args.tf_token_type)
shape = {"padding": "max_length", "truncation": True, "max_length": args.tf_max_len}
ids = np.array(tokenizer(lines, **shape)["input_ids"], np.int64)
ids[3:3 + CHANGED, 1] += 1
path = f"{args.data_path.rpartition('.')[0]}.{args.tf_token_type}_{args.tf_max_len}.dat"
ids.tofile(path)
open(f"{path}.meta", "w").write(f"{len(ids)} {args.tf_max_len} int64")
"""


def bench(*words: str | Path, script: str = "tokenize.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench" / script, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)


def fake_peer(folder: Path, changed: int) -> Path:
    (folder / "utils").mkdir(parents=True)
    script = PEER_SCRIPT.replace("CHANGED", str(changed))
    (folder / "utils" / "tokenization_utils.py").write_text(script, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("toy")
    return make_toy(root / "Toy"), make_tokenizer(root / "model")


def toy_words(toy: tuple[Path, Path], out: Path) -> list[str | Path]:
    data, model = toy
    return ["--data", data, "--tokenizer", model, "--max-len", "16", "--repeats", "1", "--threads", "1", "--json", out]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_ours_alone_gives_table_and_json_and_leaves_the_data_folder_as_it_was(
    toy: tuple[Path, Path], tmp_path: Path
) -> None:
    before = sorted(toy[0].rglob("*"))
    done = bench(*toy_words(toy, tmp_path / "out.json"), "--texts", "40")
    assert done.returncode == 0, done.stderr
    assert sorted(toy[0].rglob("*")) == before
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["peer"], found["ratio"], found["ids"]) == (None, None, None)
    ours = found["ours"]
    assert ours["texts"] == 40
    assert ours["texts_per_s"]["median"] == pytest.approx(40 / ours["seconds"]["median"])
    assert ours["seconds"]["median"] < ours["process_seconds"]["median"]
    assert 20 < ours["peak_mb"]["median"] < 5000
    assert "40 texts" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [
        "texts/s",
        "seconds",
        "seconds",
        "peak",
        "bytes",
    ]


@pytest.mark.parametrize(
    ("changed", "status", "verdict"),
    [(0, 0, "ids: identical in all 200 rows"), (2, 1, "ids: 2 of 200 rows DIFFER, the first is row 3")],
)
def test_a_peer_runs_beside_ours_and_its_ids_are_compared(
    toy: tuple[Path, Path], tmp_path: Path, changed: int, status: int, verdict: str
) -> None:
    peer = fake_peer(tmp_path / "peer", changed)
    words = toy_words(toy, tmp_path / "out.json")
    done = bench(*words, "--peer", peer, "--peer-python", sys.executable)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1] == verdict
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["peer"]["bytes"] == 200 * 16 * 8
    assert found["ratio"]["bytes"] == pytest.approx(found["peer"]["bytes"] / found["ours"]["bytes"])
    seconds = [found[side]["seconds"]["all"][0] for side in ("peer", "ours")]
    assert found["ratio"]["seconds"]["median"] == pytest.approx(seconds[0] / seconds[1])
    assert found["ids"]["same"] is (changed == 0)
    assert found["settings"]["peer"] == str(peer)


@pytest.mark.parametrize("script", ["tokenize.py", "evaluate.py"])
def test_help_shows_the_run_lines(script: str) -> None:
    done = bench("--help", script=script)
    assert done.returncode == 0, done.stderr
    assert f"python bench/{script} --data" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "tokenize.py: nowhere/raw/trn_X.txt is missing"),
        (["--peer", "tests"], "tokenize.py: --peer tests lacks utils/tokenization_utils.py"),
        (["--repeats", "0"], "tokenize.py: --repeats 0: at least 1"),
        (["--peer-python", "no-python"], "tokenize.py: --peer-python no-python: no such program"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(toy: tuple[Path, Path], words: list[str], message: str) -> None:
    done = bench("--data", toy[0], *words)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "code", ["import tokenize", "import dataclasses, tokenize", "import inspect, linecache, tokenize"]
)
def test_a_script_of_the_bench_folder_gets_the_standard_librarys_tokenize(code: str) -> None:
    check = f"import sys; sys.path.insert(0, {str(ROOT / 'bench')!r}); {code}; print(tokenize.__file__, tokenize.NAME)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) + "/bench" not in done.stdout


# ---- comparing ids --------------------------------------------------------------------------------------------------


def store_of(path: Path, rows: list[list[int]]) -> TokenStore:
    with PartialTokens.open(path, TokenInfo("text", "tokenizer", 8, 0, 100)) as partial:
        partial.append(np.concatenate([np.array(row, np.int64) for row in rows]), np.array([len(row) for row in rows]))
        write_store(path, partial)
    return TokenStore.open(path)


def dat_of(path: Path, rows: list[list[int]]) -> DatStore:
    return DatStore(write_dat(path, np.array([row + [0] * (8 - len(row)) for row in rows], np.int64)), 0)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        ([[1, 5, 2], [1, 2], [1, 7, 8, 2]], Comparison(3, 3, 0, None)),
        ([[1, 5, 2], [1, 3], [1, 7, 8, 2]], Comparison(3, 3, 1, 1)),
        ([[1, 5, 2], [1, 2, 4], [1, 7, 9, 2]], Comparison(3, 3, 2, 1)),
        ([[1, 5, 2], [1, 2]], Comparison(3, 2, 0, None)),
    ],
)
def test_rows_that_differ_are_counted(tmp_path: Path, theirs: list[list[int]], expected: Comparison) -> None:
    ours = store_of(tmp_path / "a.tokens", [[1, 5, 2], [1, 2], [1, 7, 8, 2]])
    found = compare_ids(ours, dat_of(tmp_path / "b.dat", theirs))
    assert found == expected
    assert found.same is (expected.different == 0 and len(theirs) == 3)


def test_comparing_ids_equals_a_loop_over_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.tokenizing.BLOCK", 7)
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 99, rng.integers(1, 9)).tolist() for _ in range(100)]
    theirs = [row if rng.random() < 0.7 else rng.integers(1, 99, rng.integers(1, 9)).tolist() for row in rows]
    different = [i for i, (a, b) in enumerate(zip(rows, theirs, strict=True)) if a != b]
    found = compare_ids(store_of(tmp_path / "a.tokens", rows), dat_of(tmp_path / "b.dat", theirs))
    assert found == Comparison(100, 100, len(different), different[0])


def test_other_texts_are_never_called_identical() -> None:
    line = describe({"rows_ours": 3, "rows_peer": 2, "different": 0, "first": None, "same": False})
    assert line == "ids: 3 rows of ours, 2 of the peer: NOT the same texts"


# ---- measuring ------------------------------------------------------------------------------------------------------


def child_command(code: str) -> list[str | Path]:
    return [sys.executable, "-c", f"import json, sys, time\nfrom pathlib import Path\n{code}"]


def test_peak_memory_counts_the_workers_of_a_child(tmp_path: Path) -> None:
    hold = "x = bytearray(60_000_000); import time; time.sleep(0.5)"
    code = f"""import subprocess
workers = [subprocess.Popen([sys.executable, "-c", {hold!r}]) for _ in range(2)]
[worker.wait() for worker in workers]
Path("result.json").write_text(json.dumps({{"seconds": 1}}))"""
    child = run_child(child_command(code), tmp_path / "result.json", 1, tmp_path)
    assert child.result == {"seconds": 1}
    assert 120 < child.peak_mb < 400
    assert child.wall_seconds >= 0.5


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"ended with status 3:\nno such tokenizer"):
        run_child(child_command("print('no such tokenizer'); sys.exit(3)"), tmp_path / "result.json", 1, tmp_path)
    with pytest.raises(BenchError, match="no-python cannot be started"):
        run_child(["no-python"], tmp_path / "result.json", 1, tmp_path)


def test_an_older_result_is_not_taken_for_that_of_a_child_without_one(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"seconds": 1}')
    with pytest.raises(BenchError, match="status 0"):
        run_child(child_command("pass"), tmp_path / "result.json", 1, tmp_path)


def test_children_get_the_number_of_threads(tmp_path: Path) -> None:
    code = 'import os; Path("result.json").write_text(json.dumps(os.environ["OMP_NUM_THREADS"]))'
    assert run_child(child_command(code), tmp_path / "result.json", 3, tmp_path).result == "3"


def test_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def side(name: str) -> int:
        order.append(name)
        return len(order)

    found = take_turns({name: partial(side, name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_figures_are_medians_with_extremes() -> None:
    runs = [Child({"seconds": seconds}, seconds + 1, 100.0) for seconds in (2.0, 4.0, 1.0)]
    found = figures(runs, texts=8, size=10)
    assert found["seconds"] == {"median": 2.0, "min": 1.0, "max": 4.0, "all": [2.0, 4.0, 1.0]}
    assert found["texts_per_s"]["all"] == [4.0, 2.0, 8.0]
    assert shown(found["seconds"]) == "2 (1 - 4)"


def test_numbers_and_columns_line_up() -> None:
    assert [digits(value) for value in (45000.4, 4.5678, 0.012345)] == ["45,000", "4.57", "0.0123"]
    assert shown(None) == "-"
    assert table(["what", "ours"], [["a", "1,000"], ["longer", "2"]]).splitlines() == [
        "what     ours",
        "a       1,000",
        "longer      2",
    ]
