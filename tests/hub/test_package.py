from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dexml.cli import main
from dexml.data.files import DataError
from dexml.hub.bundle import Bundle
from dexml.hub.labelset import LabelSet
from tests.training.runs import train

Capture = pytest.CaptureFixture[str]
TEXTS = ["the old red fox", "a tower of gold"]


def test_an_exported_run_predicts_as_the_run_does(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 18 files, ")
    assert Bundle.load(out).predict(TEXTS, 3) == Bundle.load(run).predict(TEXTS, 3)
    assert (out / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    assert (out / "calibration.json").exists() and not (out / "manifest.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_lies_beside_a_bundle_stays_here(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "best", tmp_path / "best")
    (tmp_path / "best" / "training_texts").mkdir()
    (tmp_path / "best" / "training_texts" / "texts.safetensors").write_bytes(b"private")
    (tmp_path / "best" / "notes.md").write_text("private")
    assert main(["export", str(tmp_path / "best"), str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "training_texts").exists() and not (tmp_path / "out" / "notes.md").exists()


def test_label_changes_are_worked_in(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "best", tmp_path / "best")
    changed = LabelSet.load(tmp_path / "best")
    n = len(changed)
    changed.add(["the old red fox", "silver violin"])
    changed.remove([0, n + 1])
    assert main(["export", str(tmp_path / "best"), str(tmp_path / "out")]) == 0
    out = Bundle.load(tmp_path / "out")
    assert not (tmp_path / "out" / "label_changes.json").exists()
    assert out.predict(TEXTS, 5) == changed.bundle.predict(TEXTS, 5)
    assert out.index is not None and changed.bundle.index is not None
    assert out.index.ids.tolist() == changed.bundle.index.ids.tolist()
    vectors = load_file(tmp_path / "out" / "label_embeddings.safetensors")["labels"]
    np.testing.assert_allclose(vectors[out.index.ids], out.index.vectors(), atol=1e-6)
    assert not vectors[[0, n + 1]].any() and out.labels[0] == "" == out.labels[n + 1]
    assert LabelSet.load(tmp_path / "out").add(["a lamp"]) == [n + 2], "an id is never used again"


def test_a_card_that_was_edited_stays(run: Path, tmp_path: Path) -> None:
    main(["export", str(run), str(tmp_path / "one")])
    (tmp_path / "one" / "README.md").write_text("mine\n")
    assert main(["export", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert (tmp_path / "two" / "README.md").read_text() == "mine\n"
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["n_docs"] == 50


@pytest.mark.parametrize(
    ("source", "folder", "message"),
    [
        ("{run}", "{tmp}", "is there already: name another folder, or remove it"),
        ("{tmp}/absent", "{tmp}/out", "absent: no such folder, and no Hub id, which looks like 'owner/name'"),
        ("{tmp}", "{tmp}/out", "is no bundle: modules.json, labels.txt"),
        ("{run}", "/proc/out", "/proc/out: cannot be written there"),
    ],
)
def test_what_cannot_be_exported_is_told(
    run: Path, tmp_path: Path, source: str, folder: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    words = [word.format(run=run, tmp=tmp_path) for word in (source, folder)]
    assert main(["export", *words]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


WORDS = {"word_vectors": "random", "word_dim": 8, "lstm_width": 8}
NETS: dict[str, dict[str, object]] = {
    "plt": {"doc_layers": 2},
    "plt, bilstm": {"text_encoder": "bilstm", "doc_layers": 1, **WORDS},
    "bilstm": {"linear_size": "8", **WORDS},
    "attentionxml": {"linear_size": "8", **WORDS},
    "lightxml": {"doc_layers": 2, "lxml_cluster_size": 5, "lxml_dim": 6},
    "mhe": {"doc_layers": 2},
    "dist-clf-net": {},
}


@pytest.mark.parametrize("net", NETS)
def test_every_kind_of_model_leaves_and_predicts_as_before(net: str, tmp_path: Path, capsys: Capture) -> None:
    keys = {"net": net.partition(",")[0], "num_epochs": 1, "num_val_points": 0, **NETS[net]}
    cfg, _ = train(tmp_path, **keys)
    assert main(["export", str(cfg.out_dir), str(tmp_path / "out")]) == 0
    assert Bundle.load(tmp_path / "out").predict(TEXTS, 5) == Bundle.load(cfg.out_dir).predict(TEXTS, 5)
    with pytest.raises(DataError, match="it has learnt them one by one"):
        LabelSet.load(tmp_path / "out").add(["silver violin"])
    text = (tmp_path / "out" / "README.md").read_text()
    searched = net == "dist-clf-net"
    assert ("library_name: sentence-transformers" in text) == searched == ("With transformers alone" in text)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "out"), "red fox", "--jsonl"]) == 0
    assert len(json.loads(capsys.readouterr().out)["labels"]) == 5
