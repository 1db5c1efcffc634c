"""`dexml index` on a bundle of 400 labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dexml import Encoder, load_config
from dexml.cli import main
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.pretrained import build_encoder
from dexml.hub.bundle import Bundle, fill_bundle, vectors_writer
from dexml.index import LabelIndex
from tests.helpers.models import write_config
from tests.index.clouds import clouds

TEXTS = ["the old red fox", "a tower of gold", "view of the lamp"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    cfg = load_config([write_config(root, bottleneck_dim=8)])
    encoder = Encoder(build_encoder(cfg, torch.device("cpu")), load_tokenizer(cfg.tf), cfg.tf_max_len)
    (root / "best").mkdir()
    fill_bundle(root / "best", encoder, [f"label {i}" for i in range(400)], vectors_writer(clouds(400, width=8)), cfg)
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run whose best/ has its own label embeddings and index; the other files are links."""
    best = tmp_path / "run" / "best"
    best.mkdir(parents=True)
    for path in (made / "best").iterdir():
        if path.name not in ("index", "label_embeddings.safetensors"):
            (best / path.name).symlink_to(path)
    meta = LabelIndex.load(made / "best" / "index").meta
    write_labels(best, clouds(400, width=8), meta)
    return best.parent


def write_labels(best: Path, label_LD: np.ndarray, meta: dict[str, object]) -> None:
    save_file({"labels": label_LD}, best / "label_embeddings.safetensors")
    LabelIndex.build(label_LD, meta=meta).save(best / "index")


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "sq8", "flat"])
def test_the_bundle_loads_with_its_new_index_unchanged(
    kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.load(run / "best")
    assert main(["index", str(run), "--kind", kind]) == 0
    after = Bundle.load(run / "best")
    assert (after.index.kind, after.index.meta) == (kind, before.index.meta)
    assert np.array_equal(after.index.ids, np.arange(400))
    head, columns, flat, new = capsys.readouterr().out.splitlines()
    assert f"best/index: 400 labels, {kind} " in head and "400 of the label embeddings" in head
    assert columns.split() == ["kind", "recall@100", "ms/query", "x", "flat", "ms", "alone", "x", "flat", "MB"]
    assert flat.split()[:2] == ["flat", "1.0000"] and new.split()[0] == kind
    assert float(new.split()[1]) > 0.5


def test_the_recall_asked_for_is_reached_and_kept(run: Path) -> None:
    words = ["index", str(run / "best"), "--kind", "ivf", "--nlist", "20", "--recall", "0.98", "--k", "10"]
    assert main(words) == 0
    index = LabelIndex.load(run / "best" / "index")
    tuning = index.meta["tuning"]
    assert index.parameters == tuning["parameters"] and index.parameters["nlist"] == 20
    assert tuning["recall"] >= 0.98 and tuning["k"] == 10 and "label embeddings" in tuning["queries"]
    assert len(Bundle.load(run / "best").predict(TEXTS, 5)[2]) == 5
    assert main(["index", str(run), "--kind", "flat"]) == 0
    assert set(LabelIndex.load(run / "best" / "index").meta) == {"sha256"}


def test_texts_can_be_the_queries_and_another_folder_the_place(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join([*TEXTS, "", ""]))
    before = (run / "best" / "index" / "index.json").read_bytes()
    words = ["index", str(run), "--kind", "hnsw", "--M", "8", "--queries", str(tmp_path / "texts.txt")]
    assert main([*words, "--out", str(tmp_path / "other"), "--recall", "0.9"]) == 0
    assert "3 texts of" in capsys.readouterr().out
    assert LabelIndex.load(tmp_path / "other").parameters["M"] == 8
    assert (run / "best" / "index" / "index.json").read_bytes() == before


def test_labels_that_were_removed_stay_away_and_added_ones_need_an_embedding(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = LabelIndex.load(run / "best" / "index")
    index.remove(np.arange(7))
    index.save(run / "best" / "index")
    assert main(["index", str(run), "--kind", "ivf"]) == 0
    assert LabelIndex.load(run / "best" / "index").ids.tolist() == list(range(7, 400))
    index.add(clouds(1, width=8), [400])
    index.save(run / "best" / "index")
    assert main(["index", str(run), "--kind", "ivf"]) == 2
    assert "holds label 400" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "pq", "--recall", "0.999"], "kind 'pq' finds"),
        (["--kind", "ivf", "--M", "4"], "no parameter 'M'"),
        (["--kind", "ivf", "--nlist", "500"], "there are 400 labels"),
        (["--kind", "ivf", "--queries", "gone.txt"], "gone.txt: no such file"),
    ],
)
def test_what_cannot_be_leaves_the_bundle_as_it_was(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run / "best" / "index" / "index.json").read_text())
    assert main(["index", str(run), *words]) == 2
    assert message in capsys.readouterr().err
    assert json.loads((run / "best" / "index" / "index.json").read_text()) == before


def test_a_folder_that_is_no_bundle_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path), "--kind", "ivf"]) == 2
    assert "is no bundle" in capsys.readouterr().err
    path = run / "best" / "label_embeddings.safetensors"
    save_file({"other": load_file(path)["labels"]}, path)
    assert main(["index", str(run), "--kind", "ivf"]) == 2
    assert "does not hold 'labels'" in capsys.readouterr().err
    save_file({"labels": np.zeros((400, 5), np.float32)}, path)
    assert main(["index", str(run), "--kind", "ivf"]) == 2
    assert "has shape (400, 5), the index is 8 wide" in capsys.readouterr().err
