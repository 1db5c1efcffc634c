"""The next batch is made while the current one is in use."""

from __future__ import annotations

import threading

import pytest

from dexml.training.ahead import ahead


def test_every_item_in_order_each_made_once() -> None:
    made: list[int] = []
    assert list(ahead(range(5), lambda i: made.append(i) or i * i)) == [0, 1, 4, 9, 16]  # type: ignore[func-returns-value]
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead([], lambda i: i)) == []


def test_the_next_is_made_while_the_current_one_is_in_use_and_no_more_than_one() -> None:
    begun = [threading.Event() for _ in range(4)]
    for i in ahead(range(4), lambda i: begun[i].set() or i):  # type: ignore[func-returns-value]
        if i < 3:
            assert begun[i + 1].wait(5)
        assert not any(event.is_set() for event in begun[i + 2 :])


def test_an_error_comes_with_its_item() -> None:
    found = []
    with pytest.raises(ZeroDivisionError):
        for x in ahead([2, 1, 0, 5], lambda i: 2 // i):
            found.append(x)
    assert found == [1, 2]
