import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from dexml import Encoder, load_config
from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.data.tokenizer import load_tokenizer
from dexml.encoders.pretrained import build_encoder
from dexml.evaluation.calibration import Calibration
from dexml.hub.bundle import Bundle, fill_bundle, vectors_writer
from dexml.index import LabelIndex, LabelIndexError
from tests.helpers.models import write_config

LABELS = [
    "red fox",
    "blue\u2028boat",
    "green\ttower",
    "gold\x0blamp",
    "\u00e9l\u00e8ve \U0001f98a",
    "white\u0085cloud",
    "",
    "pink\rbridge",
]
TEXTS = ["the old red fox", "a tower of gold", "view of the lamp"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


def make_bundle(root: Path, labels: list[str] = LABELS, calibration: Calibration | None = None) -> Path:
    cfg = load_config([write_config(root, bottleneck_dim=6)])
    encoder = Encoder(build_encoder(cfg, torch.device("cpu")), load_tokenizer(cfg.tf), cfg.tf_max_len)
    (root / "best").mkdir()
    fill_bundle(root / "best", encoder, labels, vectors_writer(encoder.encode(labels)), cfg, calibration)
    return root / "best"


def test_a_bundle_predicts_what_a_scan_over_all_labels_finds(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    scores = Encoder.load(bundle).encode(TEXTS) @ load_file(bundle / "label_embeddings.safetensors")["labels"].T
    found = loaded.predict(TEXTS, k=3)
    for row, row_scores in zip(found, scores, strict=True):
        best = np.argsort(-row_scores, kind="stable")[:3]
        assert [label for label, _ in row] == [LABELS[i] for i in best]
        assert [score for _, score in row] == pytest.approx(row_scores[best].tolist(), abs=1e-6)
    assert [len(row) for row in loaded.predict(TEXTS, k=100)] == [len(LABELS)] * 3
    assert loaded.predict([]) == []


def test_a_threshold_keeps_the_labels_that_are_likely_enough(bundle: Path) -> None:
    with pytest.raises(DataError, match="so its scores are not probabilities: train with num_val_points"):
        Bundle.load(bundle).predict(TEXTS, threshold=0.5)
    plain = Bundle.load(bundle).predict(TEXTS, k=8)
    middle = float(np.median([score for row in plain for _, score in row]))
    (bundle / "calibration.json").write_text(json.dumps(Calibration(0.1, middle).to_dict()))
    loaded = Bundle.load(bundle)
    assert loaded.predict(TEXTS, k=8) == plain, "without a threshold scores stay scores"
    cut = loaded.predict(TEXTS, k=8, threshold=0.5)
    assert 0 < sum(map(len, cut)) < sum(map(len, plain))
    for row, whole in zip(cut, plain, strict=True):
        likely = [(label, 1 / (1 + np.exp((middle - score) / 0.1))) for label, score in whole if score > middle]
        assert [label for label, _ in row] == [label for label, _ in likely]
        assert [p for _, p in row] == pytest.approx([p for _, p in likely], abs=1e-6)


@pytest.mark.parametrize("content", ["{", "[]", '{"temperature": 0, "shift": 1}', '{"temperature": 1}'])
def test_a_calibration_that_is_none_is_refused(bundle: Path, content: str) -> None:
    (bundle / "calibration.json").write_text(content)
    with pytest.raises(DataError, match=r"calibration.json: .*delete it to go without probabilities"):
        Bundle.load(bundle)


def test_a_calibration_is_exported_with_the_bundle(tmp_path: Path) -> None:
    given = Calibration(0.2, 0.4)
    assert Bundle.load(make_bundle(tmp_path, calibration=given)).calibration == given


def test_labels_come_back_one_a_line_whatever_characters_they_hold(bundle: Path) -> None:
    assert list(Bundle.load(bundle).labels) == LABELS
    assert (bundle / "labels.txt").read_bytes().count(b"\n") == len(LABELS)


def test_the_config_and_the_label_embeddings_are_there(bundle: Path) -> None:
    assert load_config([bundle / "dexml.yaml"]).bottleneck_dim == 6
    embeddings = load_file(bundle / "label_embeddings.safetensors")["labels"]
    assert embeddings.shape == (len(LABELS), 6) and embeddings.dtype == np.float32
    np.testing.assert_allclose(Encoder.load(bundle).encode(LABELS), embeddings, atol=1e-6)


def test_a_label_of_two_lines_and_embeddings_of_other_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label 1 \('two\\nlines'\) holds a line break"):
        make_bundle(tmp_path, ["one", "two\nlines"])
    encoder, cfg = Encoder.load(tmp_path / "model"), load_config([tmp_path / "run.yaml"])
    with pytest.raises(DataError, match="there are 3 label embeddings for 2 labels"):
        fill_bundle(tmp_path / "best", encoder, ["one", "two"], vectors_writer(np.zeros((3, 32), np.float32)), cfg)


@pytest.mark.parametrize("name", ["modules.json", "labels.txt", "label_embeddings.safetensors"])
def test_a_folder_that_is_no_bundle_is_told_so(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(DataError, match=f"is no bundle: {name} missing"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "2_Dense/model.safetensors", "tokenizer.json", "1_Pooling/config.json", "config.json"]
)
def test_a_missing_or_changed_file_is_named(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] + b" ")
    with pytest.raises(DataError, match=f"{name} has changed since the index was built"):
        Bundle.load(bundle)
    (bundle / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        Bundle.load(bundle)


def swap_labels(bundle: Path) -> None:
    lines = (bundle / "labels.txt").read_bytes().split(b"\n")
    (bundle / "labels.txt").write_bytes(b"\n".join([lines[1], lines[0], *lines[2:]]))


def cut_index(bundle: Path) -> None:
    file = next((bundle / "index").glob("*.faiss"))
    file.write_bytes(file.read_bytes()[:-4])


def index_of_another_width(bundle: Path) -> None:
    LabelIndex.build(np.zeros((2, 5), np.float32)).save(bundle / "index")


def index_of_more_labels(bundle: Path) -> None:
    LabelIndex.build(np.zeros((1, 6), np.float32), ids=[len(LABELS)]).save(bundle / "index")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (swap_labels, DataError, "labels.txt has changed since the index was built"),
        (cut_index, LabelIndexError, "was a copy cut short"),
        (index_of_another_width, DataError, "the index is 5 wide, the encoder 6"),
        (index_of_more_labels, DataError, "the index holds label 8, labels.txt has 8 lines"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    bundle: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    damage(bundle)
    with pytest.raises(error, match=message):
        Bundle.load(bundle)


def test_code_that_comes_with_a_bundle_is_refused(bundle: Path) -> None:
    index = LabelIndex.load(bundle / "index")
    LabelIndex.build(np.zeros((1, 6), np.float32)).save(bundle / "index")  # an index that vouches for no file
    assert set(index.meta["sha256"]) >= {"config.json", "labels.txt", "model.safetensors"}
    config = json.loads((bundle / "config.json").read_text()) | {"auto_map": {"AutoModel": "own.Model"}}
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="set trust_remote_code: true"):
        Bundle.load(bundle)
