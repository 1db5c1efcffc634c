import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexml.data import DataError, Lines, textfile


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.txt"
    path.write_bytes(data)
    return path


def naive(data: bytes) -> list[str]:
    text = data.decode("utf-8-sig")
    parts = text.split("\n")
    return [part.strip() for part in (parts[:-1] if parts[-1] == "" else parts)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\n", ["a", ""]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b" a \n\tb", ["a", "b"]),
        ("\ufeffa\nb\n".encode(), ["a", "b"]),
        ("\ufeff".encode(), []),
        ("a\u2028b\x0bc\x85d\x1ce\nä\n".encode(), ["a\u2028b\x0bc\x85d\x1ce", "ä"]),
        (b"a\rb\n", ["a\rb"]),
    ],
)
def test_lines_are_split_at_newlines_only_and_stripped(tmp_path, data, expected):
    lines = Lines(write(tmp_path, data))
    assert len(lines) == len(expected)
    assert list(lines) == lines[:] == [lines[i] for i in range(len(lines))] == expected


@given(data=st.text(alphabet="a \t\n\ré\u2028\u3000\x00日", max_size=60), block=st.integers(1, 9))
def test_lines_equal_a_plain_split_for_any_text_and_block_size(tmp_path_factory, data, block):
    path = write(tmp_path_factory.mktemp("t"), data.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfile, "BLOCK", block)
        lines = Lines(path)
    expected = naive(data.encode())
    assert list(lines) == expected
    assert lines.blank().tolist() == [i for i, text in enumerate(expected) if not text]


def test_read_gives_rows_in_the_order_asked(tmp_path):
    lines = Lines(write(tmp_path, b"a\nb\nc"))
    assert lines.read(np.array([2, 0, 2])) == ["c", "a", "c"]
    assert lines.read([]) == lines.read(np.array([], int)) == []
    assert lines[-1] == "c"
    assert lines[::-2] == ["c", "a"]


@pytest.mark.parametrize("rows", [[3], [-1], np.array([0, 3])])
def test_rows_outside_the_file_are_refused(tmp_path, rows):
    with pytest.raises(IndexError, match="of 3 lines"):
        Lines(write(tmp_path, b"a\nb\nc")).read(rows)


def test_an_index_outside_the_file_is_refused(tmp_path):
    lines = Lines(write(tmp_path, b"a\n"))
    for index in (1, -2):
        with pytest.raises(IndexError):
            lines[index]


@pytest.mark.parametrize(
    ("data", "line"), [(b"ok\nb\xe9\n", 2), (b"\xff\xfea", 1), (b"a\n\nok \xc3", 3), ("é\n".encode() * 9 + b"\x80", 10)]
)
@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_invalid_utf8_names_file_and_line(tmp_path, monkeypatch, data, line, block):
    monkeypatch.setattr(textfile, "BLOCK", block)
    with pytest.raises(DataError, match=rf"x\.txt:{line}: not valid UTF-8"):
        Lines(write(tmp_path, data))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: no such file"):
        Lines(tmp_path / "gone.txt")


@pytest.mark.parametrize("data", [b"", b"a\n" * 10, b"long line\n\n\nx\n" * 7, b"one"])
@pytest.mark.parametrize(("rows", "size"), [(1, 100), (3, 4), (100, 1), (4, 1000)])
def test_batches_cover_every_row_once_in_order_and_respect_the_limits(tmp_path, data, rows, size):
    lines = Lines(write(tmp_path, data))
    batches = list(lines.batches(rows, size))
    assert [row for batch in batches for row in batch] == list(range(len(lines)))
    assert all(0 < len(batch) <= rows for batch in batches)


def test_pickling_carries_the_path_not_the_contents(tmp_path):
    lines = Lines(write(tmp_path, b"text\n" * 10_000))
    data = pickle.dumps(lines)
    assert len(data) < 1000
    assert pickle.loads(data)[9_999] == "text"
