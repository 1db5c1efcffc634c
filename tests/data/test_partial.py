"""Batches on their way into a token file outlive a kill at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dexml.data import DataError
from dexml.data.partial import PartialTokens
from dexml.data.tokens import TokenInfo

INFO = TokenInfo("text", "tokenizer", max_len=8, pad_id=0, vocab_size=100)
BATCHES = [([1, 2, 3], [2, 1]), ([], [0]), ([7, 8, 9, 9], [4]), ([5], [0, 1, 0])]


def append(partial: PartialTokens, batches: list[tuple[list[int], list[int]]]) -> None:
    for ids, lengths in batches:
        partial.append(np.array(ids, np.int64), np.array(lengths, np.int64))


def held(partial: PartialTokens) -> list[tuple[list[int], list[int]]]:
    return [(ids.tolist(), lengths.tolist()) for ids, lengths in partial.batches()]


def interrupted(path: Path, batches: list[tuple[list[int], list[int]]], info: TokenInfo = INFO) -> Path:
    with pytest.raises(KeyboardInterrupt), PartialTokens.open(path, info) as partial:
        append(partial, batches)
        raise KeyboardInterrupt
    return path.with_name(f".{path.name}.part")


def test_what_was_appended_is_read_back_and_counted(tmp_path: Path) -> None:
    with PartialTokens.open(tmp_path / "x", INFO) as partial:
        append(partial, BATCHES)
        assert held(partial) == BATCHES
        assert (partial.rows, partial.tokens) == (7, 8)
        assert partial.counts[[1, 5, 9, 0]].tolist() == [1, 1, 2, 0]
        assert partial.counts.sum() == 8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("vocab", [65_536, 65_537])
def test_the_largest_id_survives(tmp_path: Path, vocab: int) -> None:
    with PartialTokens.open(tmp_path / "x", TokenInfo("t", "k", 8, 0, vocab)) as partial:
        append(partial, [([vocab - 1, 0], [2])])
        assert held(partial) == [([vocab - 1, 0], [2])]


def test_after_a_cut_at_any_byte_the_whole_batches_are_kept_and_the_rest_can_follow(tmp_path: Path) -> None:
    data = interrupted(tmp_path / "x", BATCHES).read_bytes()
    sizes = []
    for size in range(len(data) + 1):
        (tmp_path / ".x.part").write_bytes(data[:size])
        with PartialTokens.open(tmp_path / "x", INFO) as partial:
            whole = len(held(partial))
            assert held(partial) == BATCHES[:whole]
            append(partial, BATCHES[whole:])
            assert held(partial) == BATCHES
            assert partial.counts.tolist() == np.bincount([1, 2, 3, 7, 8, 9, 9, 5], minlength=100).tolist()
            assert (tmp_path / ".x.part").read_bytes() == data
        sizes.append(whole)
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, 4)


@pytest.mark.parametrize("tail", [bytes(1000), b"\xff" * 1000, b"x"])
def test_what_a_power_cut_leaves_behind_the_last_batch_is_dropped(tmp_path: Path, tail: bytes) -> None:
    path = interrupted(tmp_path / "x", BATCHES)
    path.write_bytes(path.read_bytes() + tail)
    with PartialTokens.open(tmp_path / "x", INFO) as partial:
        assert held(partial) == BATCHES
        assert partial.rows == 7


def test_a_flipped_bit_ends_the_batches_before_it(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "x", BATCHES)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with PartialTokens.open(tmp_path / "x", INFO) as partial:
        assert held(partial) == BATCHES[:3]


def test_batches_of_another_text_are_not_taken_over(tmp_path: Path) -> None:
    interrupted(tmp_path / "x", BATCHES, TokenInfo("other text", "tokenizer", 8, 0, 100))
    with PartialTokens.open(tmp_path / "x", INFO) as partial:
        assert (partial.rows, held(partial)) == (0, [])
        append(partial, BATCHES[:1])
        assert held(partial) == BATCHES[:1]


def test_ids_that_do_not_fill_the_rows_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="3 ids do not fill rows of 4 tokens"),
        PartialTokens.open(tmp_path / "x", INFO) as partial,
    ):
        append(partial, [([1, 2, 3], [4])])


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make the folder writable"), PartialTokens.open(tmp_path / "no" / "x", INFO):
        pass


WAITING = """
import logging, sys
from pathlib import Path
from dexml.data.partial import PartialTokens
from tests.data.test_partial import INFO
logging.basicConfig(level=logging.INFO)
with PartialTokens.open(Path(sys.argv[1]), INFO) as partial:
    print(partial.rows)
"""


@pytest.mark.parametrize("well", [True, False])
def test_another_process_waits_and_then_finds_a_new_file_or_what_the_failed_one_left(
    tmp_path: Path, well: bool
) -> None:
    command = [sys.executable, "-c", WAITING, tmp_path / "x"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        with PartialTokens.open(tmp_path / "x", INFO) as partial:
            append(partial, BATCHES)
            other = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
            assert "another process is writing it" in other.stderr.readline()
            if not well:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert other.communicate()[0] == ("0\n" if well else "7\n")
    assert list(tmp_path.iterdir()) == []
