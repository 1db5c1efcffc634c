"""Members of an ensemble: every head that knows probabilities, and what the command says and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench.plt
from dexml.cli import main
from dexml.config import ConfigError
from dexml.data.dataset import Dataset
from dexml.evaluation.topk import Csr
from dexml.evaluation.uncertainty_tasks import kept, other_texts, wrong_labels
from dexml.evaluation.uncertainty_texts import Member, Readings, read
from dexml.hub.ensemble_uncertainty import Question, measure
from dexml.hub.members import load_member
from dexml.training.checkpoint import checkpoints
from tests.helpers.datasets import make_toy, write_lines
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks
from tests.training.runs import train

SHORT: dict[str, Any] = {"num_epochs": 1, "eval_interval": 1, "num_val_points": 0, "lr": 3e-3}
TREE = {"net": "plt", "plt_arity": 3, "plt_max_leaves": 4}
PLT = {**SHORT, **TREE, "doc_layers": 1, "plt_beam": 3, "clf_lr": 0.05}
FEATURES = {**SHORT, "doc_layers": 1, "clf_lr": 0.03}
WORDS = {"word_vectors": "random", "word_dim": 8, "lstm_width": 8, "linear_size": "8"}
NETS: dict[str, dict[str, Any]] = {
    "plt": PLT,
    "plt, labelwise": {**SHORT, **WORDS, **TREE, "plt_scorer": "labelwise", "plt_beam": 2},
    "classifier": {**SHORT, "net": "dist-clf-net", "loss_criterion": "bce", "clf_lr": 0.05},
    "dual encoder": {**SHORT, "loss_criterion": "bce"},
    "lightxml": {**FEATURES, "net": "lightxml", "lxml_cluster_size": 4, "lxml_dim": 8},
    "mhe cascade": {**FEATURES, "net": "mhe", "mhe_kind": "cascade", "mhe_open": 2},
    "bilstm": {**SHORT, **WORDS, "net": "bilstm"},
    "bilstm, lwan": {**SHORT, **WORDS, "net": "bilstm", "attention_output": "lwan"},
    "attentionxml": {**SHORT, **WORDS, "net": "attentionxml", "cluster_size": 4, "beam_width": 3},
    "attentionxml, deep": {**SHORT, **WORDS, "net": "attentionxml", "tree_levels": "2,3", "beam_width": 2},
    "attentionxml, all": {**SHORT, **WORDS, "net": "attentionxml", "cluster_size": 4, "beam_width": 99},
}
LIGHT = ("plt", "plt, labelwise", "classifier", "attentionxml, deep")  # the others are heavy


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("members")


@pytest.fixture(scope="module")
def runs(root: Path) -> list[Path]:
    """Two label trees that differ."""
    made = [train(root, **PLT, expname=f"plt-{i}", seed=i, bootstrap_seed=i)[0] for i in range(2)]
    write_lines(root / "other.txt", ["lamp lamp lamp", "the of a", "very fine very fine view", "near"])
    return [cfg.out_dir for cfg in made]


def of(path: Path) -> Member:
    return load_member(path).member


def truth_of(root: Path) -> tuple[list[str], Csr]:
    test = Dataset.load(root / "Datasets" / "Toy").tst
    return list(test.texts), test.relevance


@pytest.mark.parametrize("net", [pytest.param(n, marks=() if n in LIGHT else pytest.mark.heavy) for n in NETS])
def test_the_probability_of_a_label_is_the_score_it_was_found_with(root: Path, net: str) -> None:
    cfg, _ = train(root, **NETS[net], expname=f"net {net}")
    member, texts = of(cfg.out_dir), truth_of(root)[0]
    encoded = member.encode(texts)
    found = member.find(encoded, 6)
    real = found.ids >= 0
    assert real[:, 0].all() and (found.p[real] > 0).all() and (found.p <= 1).all()
    np.testing.assert_allclose(member.score(encoded, found.ids)[real], found.p[real], rtol=1e-4, atol=1e-7)
    every = member.score(encoded, np.tile(np.arange(-1, 30), (len(texts), 1)))
    assert not every[:, 0].any()
    left = every[:, 1:].copy()
    np.put_along_axis(left, found.ids.clip(0), np.where(real, 0, np.take_along_axis(left, found.ids.clip(0), 1)), 1)
    assert (left.max(axis=1) <= found.omitted_max + 1e-6).all()
    assert (left.sum(axis=1) <= found.omitted_mass + 1e-5).all()
    if net.startswith("attentionxml"):
        assert (found.omitted_max < 1).all()
    if net == "attentionxml, all":
        assert np.array_equal(found.omitted_max, found.p[:, -1])


@pytest.mark.parametrize("table", ["replicated", "sharded"])
def test_a_checkpoint_is_a_member(root: Path, table: str) -> None:
    keys = {**PLT, "plt_table": table, "num_epochs": 2, "save_keep": 9, "expname": f"snapshots-{table}"}
    cfg, _ = train(root, **keys)
    texts, every = truth_of(root)[0], np.tile(np.arange(30), (50, 1))
    early, last = checkpoints(cfg.out_dir / "checkpoints")
    run, first, second = (of(path).score(of(path).encode(texts), every) for path in (cfg.out_dir, early, last))
    assert np.abs(first - run).max() > 1e-3
    np.testing.assert_allclose(second, run, atol=1e-6)
    softmax = train(root, **SHORT, expname="no head", net="dist-clf-net", loss_criterion="bce")[0]
    with pytest.raises(ConfigError, match="only nets with layers of their own can be read from checkpoints"):
        load_member(checkpoints(softmax.out_dir / "checkpoints")[0])


def test_more_texts_at_once_change_nothing(root: Path, runs: list[Path]) -> None:
    texts, members = truth_of(root)[0], [of(run) for run in runs]
    whole = read(members, texts, 5, 30)
    parts = Readings.joined([read(members, texts[i : i + 7], 5, 30) for i in range(0, len(texts), 7)])
    assert np.array_equal(whole.ids, parts.ids)
    np.testing.assert_allclose(whole.of_labels.total, parts.of_labels.total, atol=1e-5)


def test_tasks_are_judged_on_the_ensembles_own_order(root: Path, runs: list[Path]) -> None:
    texts, truth = truth_of(root)
    readings = read([of(run) for run in runs], texts, 10, 30)
    mean = readings.of_labels.mean
    first = [int(readings.ids[i, np.argmax(mean[i])]) for i in range(len(texts))]
    wrong = [truth[i, label] == 0 for i, label in enumerate(first)]
    found = wrong_labels(readings, truth)
    assert found["1"]["wrong"] == pytest.approx(np.mean(wrong)) and found["3"]["items"] == 3 * len(texts)
    shares = kept(readings, truth)
    assert shares["share"][-1] == 100 and shares["total"][-1] == pytest.approx(100 * (1 - np.mean(wrong)))
    same = other_texts(readings, readings)
    assert same["total"]["auroc"] == pytest.approx(0.5) and same["knowledge"]["auroc"] == pytest.approx(0.5)


def test_the_command_writes_and_prints(root: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["uncertainty", *map(str, runs), "--ood", str(root / "other.txt"), "--top-k", "8"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "50 texts of tst, 2 members (complete)" in told and "4 other texts" in told
    folder = runs[0] / "uncertainty"
    found = json.loads((folder / "summary.json").read_text())
    assert [member["path"] for member in found["members"]] == list(map(str, runs))
    assert len({member["tree"] for member in found["members"]}) == 2 and set(found["wrong labels"]) == {"1", "3", "5"}
    with np.load(folder / "tst.npz") as arrays:
        assert len(arrays["indptr"]) == 51 and len(arrays["bound"]) == len(arrays["rows"]) == 50
        assert len(arrays["ids"]) == len(arrays["mean"]) == arrays["indptr"][-1]
        assert (arrays["total"] >= arrays["data"]).all()
    with np.load(folder / "ood.npz") as arrays:
        assert len(arrays["indptr"]) == 5
    assert main([*words, "--mode", "zero", "--most", "20", "--out", str(root / "zero")]) == 0
    zero = json.loads((root / "zero" / "summary.json").read_text())
    assert zero["points"] == 20 and zero["mode"] == "zero"


@pytest.mark.heavy
def test_two_processes_read_what_one_does(root: Path, runs: list[Path]) -> None:
    words = ["uncertainty", *map(str, runs), "--top-k", "8", "--most", "21", "--out"]
    for n in (1, 2):
        run_ranks(n, "dexml.cli", *words, str(root / f"by-{n}"))
    one, two = (np.load(root / f"by-{n}" / "tst.npz") for n in (1, 2))
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)


def test_scores_that_are_no_probabilities_are_refused(root: Path, runs: list[Path]) -> None:
    cfg, _ = train(root, **SHORT, expname="softmax", net="dist-clf-net")
    with pytest.raises(ConfigError, match="loss_criterion decoupled-softmax are no probabilities: train with bce"):
        measure(Question([runs[0], cfg.out_dir]))


def test_members_of_other_labels_are_refused(root: Path, runs: list[Path], tmp_path: Path) -> None:
    make_toy(tmp_path / "Datasets" / "Toy", n_labels=29)
    make_model(tmp_path / "model")
    other, _ = train(tmp_path, **PLT)
    with pytest.raises(ConfigError, match="has other labels than"):
        measure(Question([runs[0], other.out_dir]))


def test_what_is_not_there_is_told(root: Path, runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say with --out where the results go"):
        measure(Question([runs[0] / "best"]))
    with pytest.raises(ConfigError, match="say with --data where the data are"):
        measure(Question([runs[0] / "best"], out=tmp_path))
    with pytest.raises(ValueError, match="gone"):
        measure(Question([runs[0]], ood=tmp_path / "gone.txt"))
    with pytest.raises(ConfigError, match="has no dev split"):
        measure(Question([runs[0]], split="dev"))


def test_the_bench_compares_searches(runs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    words = ["plt.py", str(runs[0]), "--texts", "20", "--beams", "1", "30", "--threads", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", words)
    bench.plt.main()
    exact, narrow, wide = json.loads(out.read_text())["rows"]
    assert [exact[name] for name in ("P@1", "P@5")] == [wide[name] for name in ("P@1", "P@5")]
    assert narrow["nodes"] < exact["nodes"] <= wide["nodes"]
