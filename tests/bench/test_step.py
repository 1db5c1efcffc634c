"""bench/step.py on the toy data, and what it shares with other benches that run a peer."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, load_npz

from bench.common import BenchError, Side, check_comparable, check_peer, compare_gradients, export, ratios, spread
from bench.step import OurStep, figures, full_batches, without_last_label
from dexml.config import load_config
from dexml.data.dat import DatStore
from dexml.data.dataset import Dataset, Split
from dexml.data.tokenize import open_tokens
from tests.helpers.datasets import padded
from tests.helpers.models import toy_config, write_config

ROOT = Path(__file__).parents[2]


def test_our_side_alone_prints_a_table_and_writes_its_figures(tmp_path: Path) -> None:
    config, out = write_config(tmp_path), tmp_path / "out.json"
    words = ["--config", config, "--bsz", "16", "--repeats", "2", "--threads", "1", "--json", out, "--tau", "0.1"]
    command = [sys.executable, "bench/step.py", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert set(found) == {"ours", "peer", "ratio", "settings"}
    assert found["peer"] is None and found["ratio"] is None
    assert set(found["ours"]) == {"fp32", "bf16"}
    for side in found["ours"].values():
        assert len(side["seconds"]["all"]) == 2
        assert 0 < side["seconds"]["min"] <= side["seconds"]["median"] <= side["seconds"]["max"]
        assert side["peak_mb"] > 100
    assert found["ours"]["bf16"]["loss"] == pytest.approx(found["ours"]["fp32"]["loss"], rel=1e-2)
    assert found["settings"]["config"]["tau"] == 0.1 and found["settings"]["bsz"] == 16
    head, columns, *rows = done.stdout.splitlines()
    assert "30 labels, batch 16, 16 tokens, 1 threads" in head
    assert columns.split()[:2] == ["side", "s/step"]
    assert [row.split()[:2] for row in rows] == [["ours", "fp32"], ["ours", "bf16"]]


def test_wrong_arguments_are_told_in_one_line(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    command = [sys.executable, "bench/step.py", "--config", str(config), "--peer", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: --peer {tmp_path} lacks nets.py, losses.py, datasets.py: " + (
        "clone nilesh2797/DEXML and name its folder"
    )


def test_a_step_starts_from_no_gradient(tmp_path: Path) -> None:
    cfg = load_config(write_config(tmp_path, tf_dropout=0.0))
    side = OurStep(cfg, steps=2)
    first = side.step(0, str(tmp_path / "a.npz"))
    other = side.step(1, str(tmp_path / "b.npz"))
    again = side.step(0, str(tmp_path / "c.npz"))
    assert first["loss"] == again["loss"] != other["loss"]
    assert compare_gradients(tmp_path / "a.npz", tmp_path / "c.npz")["length"] == pytest.approx(1)
    assert compare_gradients(tmp_path / "a.npz", tmp_path / "b.npz")["cosine"] < 0.999


# --- what both sides work on ---


def test_positives_of_the_last_label_and_filters_are_left_out(tmp_path: Path) -> None:
    toy_config(tmp_path)
    split = Dataset.load(tmp_path / "Datasets" / "Toy").trn
    filters = split.relevance.astype(bool)
    filtered = Split(split.name, split.texts, split.relevance, filters)
    found = without_last_label(filtered)
    expected = split.relevance.toarray()
    assert expected[:, -1].any()
    expected[:, -1] = 0
    assert np.array_equal(found.relevance.toarray(), expected)
    assert found.filters is None


def test_batches_are_full_and_hold_only_points_with_positives(tmp_path: Path) -> None:
    cfg = load_config(write_config(tmp_path, bsz=3))
    relevance = csr_matrix(np.eye(10)[:, :8])  # the last two points have no positive
    batches = list(islice(full_batches(relevance, cfg), 5))
    assert [len(batch.points) for batch in batches] == [3] * 5
    assert max(batch.points.max() for batch in batches) < 8
    assert len(np.unique(np.concatenate([batch.points for batch in batches[:2]]))) == 6


def test_fewer_points_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    cfg = load_config(write_config(tmp_path, bsz=32))
    batch = next(full_batches(csr_matrix(np.eye(10)), cfg))
    assert sorted(batch.points) == list(range(10))


def test_the_peer_gets_the_same_ids_padded_and_the_same_batches(tmp_path: Path) -> None:
    toy_config(tmp_path)
    data = Dataset.load(tmp_path / "Datasets" / "Toy")
    queries, labels = (
        open_tokens(data.path / "raw" / name, str(tmp_path / "model"), 16) for name in ("trn_X.txt", "Y.txt")
    )
    batches = [np.array([3, 1]), np.array([7])]
    export(tmp_path, queries, labels, data.trn.relevance, batches, 16)
    for name, tokens in (("x", queries), ("y", labels)):
        stored = DatStore(tmp_path / f"{name}.dat", tokens.pad_id)
        assert stored.width == 16
        rows = np.arange(len(tokens))
        assert np.array_equal(padded(stored, rows), padded(tokens, rows))
    assert np.array_equal(load_npz(tmp_path / "Y.npz").toarray(), data.trn.relevance.toarray())
    points, offsets = np.load(tmp_path / "points.npy"), np.load(tmp_path / "offsets.npy")
    assert [points[a:b].tolist() for a, b in pairwise(offsets)] == [[3, 1], [7]]


# --- figures ---


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios(peer=[10.0, 30.0, 8.0], ours=[2.0, 3.0, 4.0]) == {
        "median": 5.0,
        "min": 2.0,
        "max": 10.0,
        "all": [5.0, 10.0, 2.0],
    }
    assert spread([3.0, 1.0])["median"] == 2.0


def test_cosine_is_that_of_all_parameters_together(tmp_path: Path) -> None:
    a: dict[str, Any] = {"w": np.array([[1.0, 2.0]], np.float32), "b": np.array([2.0], np.float32)}
    b: dict[str, Any] = {"b": np.array([0.0], np.float32), "w": np.array([[3.0, 4.0]], np.float32)}
    np.savez(tmp_path / "a.npz", **a)
    np.savez(tmp_path / "b.npz", **b)
    found = compare_gradients(tmp_path / "a.npz", tmp_path / "b.npz")
    assert found["cosine"] == pytest.approx(11 / (3 * 5))
    assert found["length"] == pytest.approx(3 / 5)
    np.savez(tmp_path / "scaled.npz", w=2 * a["w"], b=2 * a["b"])
    found = compare_gradients(tmp_path / "scaled.npz", tmp_path / "a.npz")
    assert found["cosine"] == pytest.approx(1) and found["length"] == pytest.approx(2)


def test_gradients_of_different_parameters_are_not_compared(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(2), extra=np.ones(1))
    np.savez(tmp_path / "b.npz", w=np.ones(2))
    with pytest.raises(BenchError, match=r"different parameters: extra \(1 in all\)"):
        compare_gradients(tmp_path / "a.npz", tmp_path / "b.npz")


def test_the_warm_up_is_not_counted(tmp_path: Path) -> None:
    for name in ("fp32", "peer"):
        np.savez(tmp_path / f"{name}.npz", w=np.ones(3))

    def answers(peak: float, *seconds: float) -> list[dict]:
        return [{"seconds": taken, "loss": 1.5, "peak_mb": peak} for taken in seconds]

    found = figures({"fp32": answers(400, 9, 1, 2), "peer": answers(1600, 99, 5, 8)}, tmp_path)
    assert found["ours"]["fp32"]["seconds"]["all"] == [1, 2]
    assert found["peer"]["fp32"]["seconds"]["all"] == [5, 8]
    assert found["ratio"]["fp32"]["speed"]["all"] == [5, 4]
    assert found["ratio"]["fp32"]["memory"] == 0.25
    assert found["ratio"]["fp32"]["gradient"]["cosine"] == pytest.approx(1)


# --- sides ---

ECHO = """
import sys
sys.path.insert(0, sys.argv[1])
from dexml_turns import serve
def start():
    print("noise of a library")
    return {"twice": lambda x: {"x": 2 * x}, "fail": lambda: sys.exit("out of luck")}
serve(start)
"""


def test_a_side_answers_whatever_its_libraries_print(tmp_path: Path) -> None:
    with Side("echo", [sys.executable, "-c", ECHO, ROOT / "bench" / "peer"], tmp_path, threads=1) as side:
        found = side.ask("twice", x=21)
        assert found["x"] == 42 and found["peak_mb"] > 1
        assert side.ask("twice", x=0)["x"] == 0
    assert side.process.poll() is not None
    assert "noise" in side.log.read_text()


def test_a_side_that_ends_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    side = Side("echo", [sys.executable, "-c", ECHO, ROOT / "bench" / "peer"], tmp_path, threads=1)
    with side, pytest.raises(BenchError, match=r"echo ended with status 1:\nnoise of a library\nout of luck"):
        side.ask("fail")


def test_settings_that_the_peer_reads_otherwise_are_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    check_comparable(load_config(config))
    with pytest.raises(BenchError, match="bottleneck_dim is 8: the peer needs 0"):
        check_comparable(load_config(config, {"bottleneck_dim": 8}))


def test_a_folder_that_is_not_the_peer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nets.py").touch()
    with pytest.raises(BenchError, match=r"lacks losses\.py, datasets\.py"):
        check_peer(Namespace(peer=tmp_path))
