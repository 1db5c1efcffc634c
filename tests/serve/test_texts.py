"""Training texts beside the answers."""

import logging
from pathlib import Path

import numpy as np
import pytest

from dexml.data.dataset import Dataset
from dexml.data.files import DataError
from dexml.hub.bundle import Bundle
from dexml.serve.texts import CACHE, SHOWN, TrainingTexts
from tests.serve.service import TEXTS, make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "run")


def load(source: Path, bundle: Path) -> TrainingTexts:
    return TrainingTexts.load(source, Bundle.load(bundle).encoder, bundle)


def test_the_nearest_of_a_data_folder_come_with_their_labels(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "Datasets" / "Toy"
    data, texts, encoder = Dataset.load(folder), load(folder, bundle), Bundle.load(bundle).encoder
    query = encoder.encode(["red fox and a boat"])
    scores = encoder.encode(list(data.trn.texts)) @ query[0]
    for found, row in zip(texts.nearest(query, 5)[0], np.argsort(-scores, kind="stable"), strict=False):
        assert found["text"] == data.trn.texts[int(row)]
        assert found["similarity"] == pytest.approx(float(scores[row]), abs=2e-6)
        held = data.trn.relevance[int(row)].indices.tolist()
        assert found["labels"] == [data.label_texts[i] for i in held[:SHOWN]]


def test_texts_are_embedded_once_for_each_encoder_and_file(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dexml")
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS))
    first = load(file, bundle)
    assert "embedding 4 training texts, once: 0 done" in caplog.text
    caplog.clear()
    again = load(file, bundle)
    assert "embedding" not in caplog.text
    assert (again.index.vectors() == first.index.vectors()).all()
    file.write_text("another text\n")
    assert load(file, bundle).nearest(first.index.vectors()[:1], 3)[0][0]["text"] == "another text"
    assert "embedding 1 training texts" in caplog.text
    (bundle / CACHE / "index.json").write_text("{")
    assert len(load(file, bundle).index) == 1, "a damaged cache is made again"


def test_without_a_place_to_keep_them_they_are_there_all_the_same(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (bundle / CACHE).write_text("in the way of the folder")
    (tmp_path / "texts.txt").write_text("a fox\n")
    assert len(load(tmp_path / "texts.txt", bundle).index) == 1
    assert "the next start makes them again" in caplog.text


def test_a_file_without_lines_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"empty.txt has no lines"):
        load(tmp_path / "empty.txt", bundle)
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "nowhere.txt", bundle)
