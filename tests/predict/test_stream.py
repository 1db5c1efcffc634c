from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dexml.hub.bundle import Bundle
from dexml.predict.batchsize import BatchSize
from dexml.predict.inputs import Item
from dexml.predict.stream import BATCHES, predicted

TEXTS = ["red fox", "", "blue boat and green tower", "gold lamp"] * 30


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return Bundle.load(run)


def items(texts: list[str]) -> Iterator[Item]:
    return (Item(text, {"text": text}) for text in texts)


@pytest.mark.parametrize("size", [1, 3, 1000, None])
def test_labels_do_not_depend_on_parts_and_batches(bundle: Bundle, size: int | None) -> None:
    expected = bundle.find([text for text in TEXTS if text], 3)
    parts = list(predicted(bundle, items(TEXTS), 3, None, BatchSize(size)))
    assert [item.text for part, _ in parts for item in part] == TEXTS
    found = [labels for _, part in parts for labels in part]
    assert [labels for text, labels in zip(TEXTS, found, strict=True) if not text] == [[]] * 30
    real = [labels for text, labels in zip(TEXTS, found, strict=True) if text]
    assert [[label["id"] for label in labels] for labels in real] == [
        [label["id"] for label in row] for row in expected
    ]
    for labels, row in zip(real, expected, strict=True):
        assert [label["score"] for label in labels] == pytest.approx([label["score"] for label in row], abs=2e-6)


class SmallMemory:
    """A bundle whose batches may hold 4 texts."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.sizes = bundle, []

    def find(self, texts: list[str], k: int, threshold: float | None, size: int) -> list[Any]:
        self.sizes.append(size)
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.bundle.find(texts, k, threshold, size)


def test_a_batch_that_does_not_fit_is_tried_again_smaller(bundle: Bundle) -> None:
    small = SmallMemory(bundle)
    texts = 6 * TEXTS
    found = [labels for _, part in predicted(small, items(texts), 1, None, BatchSize()) for labels in part]
    assert small.sizes[:4] == [32, 16, 8, 4] and set(small.sizes[4:]) == {4}
    assert [labels[0]["id"] for labels in found if labels] == [
        labels[0]["id"] for labels in bundle.find([text for text in texts if text], 1)
    ]


def test_every_item_is_answered_before_the_next_is_asked_for_where_somebody_types(bundle: Bundle) -> None:
    asked = []

    def typed() -> Iterator[Item]:
        for text in TEXTS[:3]:
            asked.append(text)
            yield Item(text, {})

    for i, (part, _) in enumerate(predicted(bundle, typed(), 1, None, BatchSize(), at_once=True), start=1):
        assert len(part) == 1 and len(asked) == i


def test_no_more_than_a_part_of_the_stream_is_held(bundle: Bundle) -> None:
    asked = answered = 0

    def endless() -> Iterator[Item]:
        nonlocal asked
        while True:
            asked += 1
            yield Item("red fox", {})

    for part, _ in predicted(bundle, endless(), 3, None, BatchSize(2)):
        assert asked - answered == len(part) == BATCHES * 2
        answered += len(part)
        if answered > 500:
            break
