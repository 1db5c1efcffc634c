import pytest

from dexml.predict.batchsize import FIRST, LARGEST, BatchSize


def test_the_size_doubles_while_that_is_faster_and_stays_at_the_fastest() -> None:
    size, tried = BatchSize(), []
    for speed in (100.0, 180.0, 150.0, 250.0, 255.0, 100.0, 400.0):
        tried.append(size.size)
        size.done(speed)
    assert tried == [FIRST * n for n in (1, 2, 4, 4, 8, 8, 4)], "a slow part has a second chance"
    assert size.settled and size.size == 4 * FIRST


def test_it_never_grows_beyond_the_largest() -> None:
    size = BatchSize()
    for i in range(30):
        size.done(2.0**i)
    assert size.size == LARGEST and size.settled


def test_a_size_without_memory_is_never_tried_again() -> None:
    size = BatchSize()
    size.done(1.0)
    assert size.out_of_memory() and size.size == FIRST
    size.done(1e9)
    assert size.size == FIRST


@pytest.mark.parametrize(("given", "left"), [(1, False), (2, True)])
def test_a_given_size_stays_until_memory_runs_out(given: int, left: bool) -> None:
    size = BatchSize(given)
    size.done(1e9)
    assert size.size == given
    assert size.out_of_memory() is left
