"""The byte code of token ids, beside a loop that reads it token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexml.data.coding import WIDTHS, IdCode


def decode_naive(code: IdCode, leads: list[int], extras: list[int]) -> list[int]:
    rest = iter(extras)
    ids = []
    for lead in leads:
        page = lead - code.direct
        rank = lead if page < 0 else code.direct + page * 256**code.width + next(rest)
        ids.append(int(code.table[rank]))
    assert next(rest, None) is None
    return ids


def bytes_of(code: IdCode, ids: np.ndarray) -> int:
    leads, extras = code.encode(ids)
    return leads.nbytes + extras.nbytes


@st.composite
def any_ids(draw: st.DrawFn) -> np.ndarray:
    """Up to 3000 ids, few or many of them distinct, evenly or unevenly used."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vocab = rng.permutation(draw(st.sampled_from([1, 2, 255, 256, 257, 1000, 2**18])))
    count = draw(st.sampled_from([0, 1, 2, 300, 3000]))
    if draw(st.booleans()):
        return vocab[rng.zipf(1.3, count) % len(vocab)]
    return rng.choice(vocab, count)


@given(ids=any_ids())
def test_decoding_gives_the_ids_back_as_the_naive_loop_does(ids: np.ndarray) -> None:
    code = IdCode.fit(np.bincount(ids))
    leads, extras = code.encode(ids)
    assert code.decode(leads, extras).tolist() == ids.tolist() == decode_naive(code, leads.tolist(), extras.tolist())
    assert code.has_extra(leads).sum() == len(extras) == code.extras(np.bincount(ids))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("distinct", [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536])
def test_every_width_gives_the_ids_back(width: int, distinct: int) -> None:
    table = np.random.default_rng(0).permutation(distinct) + 5
    code = IdCode(table, width)
    assert code.decode(*code.encode(table)).tolist() == table.tolist()


@pytest.mark.parametrize(("distinct", "width"), [(256, 1), (60_000, 1), (65_536, 1), (65_537, 2), (2**18, 2)])
def test_all_ids_of_a_large_vocabulary_survive_in_the_narrowest_extras(distinct: int, width: int) -> None:
    ids = np.arange(distinct)
    code = IdCode.fit(np.ones(distinct, np.int64))
    leads, extras = code.encode(ids)
    assert code.width == width
    assert np.array_equal(code.decode(leads, extras), ids)


def test_the_width_with_the_fewest_bytes_is_taken() -> None:
    counts = np.ones(60_000, np.int64)
    counts[1000:1200] = 100_000  # one-byte pages would leave 22 leads, two-byte pages leave 255
    ids = np.repeat(np.arange(60_000), np.minimum(counts, 500))
    code = IdCode.fit(np.bincount(ids))
    assert code.width == 2
    assert bytes_of(code, ids) == min(bytes_of(IdCode(code.table, width), ids) for width in WIDTHS)


def test_the_most_frequent_ids_have_no_extra() -> None:
    counts = np.random.default_rng(1).permutation(np.arange(1, 1001))
    code = IdCode.fit(counts)
    frequent = np.argsort(-counts)[: code.direct]
    assert code.direct == 253
    assert not len(code.encode(frequent)[1])
    assert len(code.encode(np.arange(1000))[1]) == 1000 - 253
