from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from dexml import Encoder, load_config
from dexml.cli import main
from dexml.data.files import DataError
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.pretrained import build_encoder
from dexml.hub.bundle import Bundle
from dexml.hub.labelset import LabelSet
from tests.encoders.test_pretrained import Trap
from tests.helpers.models import toy_config

TEXTS = ["the old red fox", "a tower of gold"]
Capture = pytest.CaptureFixture[str]


def published(root: Path, rows: int = 0, prefix: str = "", **keys: Any) -> tuple[Path, Encoder, dict[str, Tensor]]:
    """A run folder as DEXML leaves it: config.yaml and model.pt, with label weights of `rows` labels if there are."""
    config = toy_config(root, **keys)
    run = root / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"numy": 30, "num_gpu": 4}))
    cfg = load_config([], config)
    torch.manual_seed(3)
    model = build_encoder(cfg, torch.device("cpu")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    extra = {"all_w.weight": torch.randn(rows, model.width), "all_w.bias": torch.randn(rows)} if rows else {}
    torch.save({prefix + name: value for name, value in (model.state_dict() | extra).items()}, run / "model.pt")
    return run / "model.pt", Encoder(model, load_tokenizer(cfg.tf), cfg.tf_max_len), extra


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("bottleneck", [0, 5])
def test_a_dual_encoder_of_dexml_predicts_by_its_own_vectors(tmp_path: Path, bottleneck: int, prefix: str) -> None:
    weights, encoder, _ = published(tmp_path, prefix=prefix, bottleneck_dim=bottleneck, tf_pooler="cls")
    assert main(["import", str(weights), str(tmp_path / "out")]) == 0
    bundle = Bundle.load(tmp_path / "out")
    assert len(bundle.labels) == 30 and bundle.index is not None
    np.testing.assert_allclose(bundle.encoder.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(bundle.index.vectors(), encoder.encode(bundle.labels), atol=1e-6)
    assert LabelSet(bundle).add(["silver violin"]) == [30]
    assert "## Use" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("rows", [30, 32])
@pytest.mark.parametrize("norm", [True, False])
def test_a_classifier_of_dexml_scores_with_weights_and_biases(tmp_path: Path, rows: int, norm: bool) -> None:
    weights, encoder, own = published(tmp_path, rows, net="dist-clf-net", norm_embs=norm)
    assert main(["import", str(weights), str(tmp_path / "out")]) == 0
    bundle = Bundle.load(tmp_path / "out")
    expected = encoder.encode(TEXTS) @ own["all_w.weight"][:30].numpy().T + own["all_w.bias"][:30].numpy()
    ids, scores = bundle.search(TEXTS, 30)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1), atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, ids, 1), scores, atol=1e-4)
    with pytest.raises(DataError, match="learnt them one by one"):
        LabelSet(bundle).add(["silver violin"])
    assert main(["index", str(tmp_path / "out"), "--kind", "hnsw"]) == 0
    assert Bundle.load(tmp_path / "out").search(TEXTS, 5)[0].tolist() == ids[:, :5].tolist()


def test_a_classifier_with_biases_is_not_evaluated_without_them(tmp_path: Path, capsys: Capture) -> None:
    weights, _, _ = published(tmp_path, 30, net="dist-clf-net")
    assert main(["import", str(weights), str(tmp_path / "out")]) == 0
    assert main(["eval", "tst", str(tmp_path / "out"), "--data", str(tmp_path / "Datasets" / "Toy")]) == 2
    assert "has a bias for each label, which is for predicting alone: use dexml predict" in capsys.readouterr().err


def test_any_sentence_transformers_model_becomes_a_bundle(tmp_path: Path) -> None:
    _, encoder, _ = published(tmp_path, bottleneck_dim=5)
    encoder.save(tmp_path / "st")
    (tmp_path / "topics.txt").write_text("red fox\nblue boat\n")
    assert main(["import", str(tmp_path / "st"), str(tmp_path / "out"), "--labels", str(tmp_path / "topics.txt")]) == 0
    bundle = Bundle.load(tmp_path / "out")
    assert list(bundle.labels) == ["red fox", "blue boat"] and bundle.index is not None
    np.testing.assert_allclose(bundle.index.vectors(), encoder.encode(bundle.labels), atol=1e-6)
    settings = load_config([tmp_path / "out" / "dexml.yaml"])
    assert (settings.tf_pooler, settings.tf_max_len, settings.bottleneck_dim) == ("mean", 16, 5)


def test_a_plain_transformer_takes_pooling_and_norm_from_the_config(tmp_path: Path) -> None:
    published(tmp_path)
    words = ["--config", str(tmp_path / "run" / "config.yaml"), "--tf_pooler", "cls", "--norm_embs", "false"]
    assert main(["import", str(tmp_path / "model"), str(tmp_path / "out"), *words]) == 0
    loaded = Encoder.load(tmp_path / "out")
    plain = Encoder.load(tmp_path / "model", pooler="cls", max_len=16).encode(TEXTS)
    found = loaded.encode(TEXTS)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-2)
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=1, keepdims=True), plain, atol=1e-5)


def missing_labels(root: Path, weights: Path) -> list[str]:
    (root / "Datasets" / "Toy" / "raw" / "Y.txt").unlink()
    return []


def more_labels(root: Path, weights: Path) -> list[str]:
    (root / "many.txt").write_text("label\n" * 31)
    return ["--labels", str(root / "many.txt"), "--net", "dist-clf-net"]


def no_config(root: Path, weights: Path) -> list[str]:
    weights.with_name("config.yaml").unlink()
    return []


def trap(root: Path, weights: Path) -> list[str]:
    torch.save({"tf.weight": Trap(root / "ran")}, weights)
    return []


def other_width(root: Path, weights: Path) -> list[str]:
    return ["--bottleneck_dim", "7"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_labels, "Y.txt: no such file: give the label texts, one a line, with --labels"),
        (more_labels, "has weights of 30 labels, but there are 31 label texts"),
        (no_config, "config.yaml"),
        (trap, "holds no weights that can be read safely"),
        (other_width, "missing bottleneck.weight"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_run(
    tmp_path: Path, capsys: Capture, damage: Callable[[Path, Path], list[str]], message: str
) -> None:
    weights, _, _ = published(tmp_path, 30, net="dist-clf-net")
    words = damage(tmp_path, weights)
    assert main(["import", str(weights), str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
