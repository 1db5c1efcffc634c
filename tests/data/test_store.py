import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from dexml.data import DataError
from dexml.data.store import DatStore, PartialTokens, TokenInfo, TokenStore, write_store
from tests.helpers.datasets import padded, write_dat

INFO = TokenInfo("text", "tokenizer", max_len=8, pad_id=0, vocab_size=30_522)
ROWS = [[5, 6, 7], [], [9], [1, 2, 3, 4, 5, 6, 7, 8], [30_522 - 1]]


def store_of(path, rows=ROWS, info=INFO, batch=2):
    with PartialTokens.open(path, info) as partial:
        for at in range(0, len(rows), batch):
            part = rows[at : at + batch]
            flat = np.array([token for row in part for token in row], np.int64)
            partial.append(flat, np.array([len(row) for row in part], np.int64))
        write_store(path, partial)
    return TokenStore.open(path)


def padded_naive(rows, pad):
    width = max(map(len, rows), default=0)
    return [row + [pad] * (width - len(row)) for row in rows]


def test_what_was_written_is_read_back(tmp_path):
    store = store_of(tmp_path / "x.tokens")
    assert len(store) == 5
    assert store.lengths.tolist() == [3, 0, 1, 8, 1]
    assert store.pad_id == 0
    ids, lengths = store.gather(np.array([3, 1, 0, 3]))
    assert ids.tolist() == ROWS[3] + ROWS[0] + ROWS[3]
    assert lengths.tolist() == [8, 0, 3, 8]
    assert ids.dtype == lengths.dtype == np.int64


@given(
    rows=st.lists(st.lists(st.integers(0, 2**18 - 1), max_size=6), max_size=8),
    batch=st.integers(1, 3),
    pick=st.lists(st.integers(0, 7), max_size=9),
)
def test_any_ragged_rows_survive_and_pad_like_the_naive_loop(tmp_path_factory, rows, batch, pick):
    info = TokenInfo("t", "k", 6, 7, vocab_size=2**18)
    store = store_of(tmp_path_factory.mktemp("s") / "x.tokens", rows, info, batch)
    wanted = [i for i in pick if i < len(rows)]
    assert padded(store, np.array(wanted, int)).tolist() == padded_naive([rows[i] for i in wanted], 7)
    assert padded(store, np.array(wanted, int), pad_id=1).tolist() == padded_naive([rows[i] for i in wanted], 1)


@pytest.mark.parametrize("distinct", [1, 256, 257, 3000, 65_536, 65_537, 2**18])
def test_rows_of_0_1_and_100_000_tokens_survive_with_any_number_of_distinct_ids(tmp_path, distinct):
    rng = np.random.default_rng(distinct)
    vocab = rng.permutation(2**18)[:distinct]
    flat = np.concatenate([vocab, vocab[rng.geometric(0.01, 300_000) % distinct]])
    lengths = np.array([0, 1, 100_000, 0, len(flat) - 100_001, 0])
    rows = [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
    store = store_of(tmp_path / "x.tokens", rows, TokenInfo("t", "k", 2**20, 0, 2**18))
    pick = np.array([4, 0, 2, 1, 5, 2])
    ids, found = store.gather(pick)
    assert ids.tolist() == [token for row in pick for token in rows[row]]
    assert found.tolist() == lengths[pick].tolist()


def test_frequent_tokens_take_one_byte_and_the_others_two(tmp_path):
    rng = np.random.default_rng(0)
    often, seldom = rng.integers(0, 100, 9000), rng.permutation(np.arange(1000, 2000))
    rows = rng.permutation(np.concatenate([often, seldom])).reshape(-1, 100).tolist()
    path = store_of(tmp_path / "x.tokens", rows).path
    table = 2 * 1100
    assert path.stat().st_size < 9000 + 2 * 1000 + table + 2 * 2 * 101 + 1000  # offsets of 2 bytes, a header
    assert len(load_file(path)["extras"]) == 1100 - 252  # 4 leads are pages of 256 ids


def test_any_reader_of_safetensors_can_open_the_file(tmp_path):
    arrays = load_file(store_of(tmp_path / "x.tokens").path)
    assert arrays["offsets"].tolist() == [0, 3, 3, 4, 12, 13]
    assert arrays["table"][arrays["leads"]].tolist() == [token for row in ROWS for token in row]


@pytest.mark.parametrize("rows", [[-1], [5], [0, 5]])
def test_rows_outside_are_refused(tmp_path, rows):
    with pytest.raises(IndexError):
        store_of(tmp_path / "x.tokens").gather(np.array(rows))


def test_nothing_is_visible_until_complete_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "x.tokens"
    with PartialTokens.open(path, INFO) as partial:
        partial.append(np.array([1, 2]), np.array([2]))
        assert not path.exists()
        write_store(path, partial)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tokens"]


def test_batches_of_another_process_among_ours_are_an_error(tmp_path):
    path = tmp_path / "x.tokens"
    with pytest.raises(DataError, match="another process has written"), PartialTokens.open(path, INFO) as partial:
        partial.append(np.array([1, 2]), np.array([2]))
        unfinished = tmp_path / ".x.tokens.part"
        unfinished.write_bytes(unfinished.read_bytes() + b"x" * 100)  # as where the file system has no locks
        partial.append(np.array([3]), np.array([1]))
        write_store(path, partial)
    assert not path.exists()


@pytest.mark.parametrize("keep", [0, 1, 10, 30, 100, -9, -8, -1])
def test_a_file_cut_short_is_refused_by_name(tmp_path, keep):
    path = store_of(tmp_path / "x.tokens").path
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(DataError, match=r"x\.tokens"):
        TokenStore.open(path)


def test_bytes_lost_from_the_middle_are_noticed(tmp_path):
    path = store_of(tmp_path / "x.tokens").path
    path.write_bytes(path.read_bytes()[8:])
    with pytest.raises(DataError, match=r"damaged or not of this version"):
        TokenStore.open(path)


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{}", b'{"__metadata__": {"format": "dexml tokens 1"}}', b"\xff", b"7"]
)
def test_another_header_is_refused_by_name(tmp_path, header):
    (tmp_path / "x.tokens").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DataError, match=r"x\.tokens: damaged or not of this version"):
        TokenStore.open(tmp_path / "x.tokens")


def test_a_file_of_the_first_version_is_refused_by_name(tmp_path):
    text = json.dumps({"version": 1, "rows": 1, "tokens": 4, "info": {}}).encode()
    ids, offsets = np.array([101, 7, 8, 102], "<u2"), np.array([0, 4], "<i8")
    tail = text + len(text).to_bytes(8, "little") + b"dexmltok"
    (tmp_path / "x.tokens").write_bytes(ids.tobytes() + offsets.tobytes() + tail)
    with pytest.raises(DataError, match=r"not of this version"):
        TokenStore.open(tmp_path / "x.tokens")


def test_the_fingerprint_changes_with_text_tokenizer_and_length():
    prints = {INFO.fingerprint}
    changed = [("b", "tokenizer", 8), ("text", "c", 8), ("text", "tokenizer", 9)]
    prints |= {TokenInfo(text, tokenizer, length, 0, 9).fingerprint for text, tokenizer, length in changed}
    assert len(prints) == 4


def test_pickling_carries_the_path_not_the_ids(tmp_path):
    store = store_of(tmp_path / "x.tokens", [[1] * 8] * 10_000)
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert pickle.loads(data).gather(np.array([9_999]))[0].tolist() == [1] * 8


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_dexmls_padded_files_give_the_same_rows(tmp_path, dtype):
    ids = np.array([[2, 5, 3, 0], [2, 3, 0, 0], [2, 0, 3, 0], [0, 0, 0, 0], [2, 7, 8, 3]], dtype)
    store = DatStore(write_dat(tmp_path / "x.dat", ids), pad_id=0)
    assert len(store) == 5
    assert store.lengths.tolist() == [3, 2, 3, 0, 4]
    flat, lengths = store.gather(np.array([4, 2, 3]))
    assert flat.tolist() == [2, 7, 8, 3, 2, 0, 3]
    assert flat.dtype == np.int64
    assert lengths.tolist() == [4, 3, 0]
    assert padded(store, np.array([0, 1])).tolist() == [[2, 5, 3], [2, 3, 0]]
    assert pickle.loads(pickle.dumps(store)).lengths.tolist() == store.lengths.tolist()


def test_a_padded_file_ends_rows_at_the_pad_id_given(tmp_path):
    ids = np.array([[0, 5, 2, 1], [0, 2, 1, 1]], np.int64)  # RoBERTa: pad is 1, the first token is 0
    assert DatStore(write_dat(tmp_path / "x.dat", ids), pad_id=1).lengths.tolist() == [3, 2]


def test_a_padded_file_without_rows_is_fine(tmp_path):
    store = DatStore(write_dat(tmp_path / "x.dat", np.empty((0, 4), np.int64)), pad_id=0)
    assert len(store) == 0
    assert store.lengths.tolist() == []
    assert padded(store, np.array([], int)).shape == (0, 0)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("3 4 int64", r"64 bytes, but its \.meta promises 3 x 4 int64 = 96 bytes"),
        ("2 4 int32", "promises 2 x 4 int32 = 32 bytes"),
        ("2 4 float64", "expected one line `rows cols dtype`"),
        ("2 4", "expected one line"),
        ("-2 4 int64", "expected one line"),
        ("", "expected one line"),
    ],
)
def test_a_meta_line_that_does_not_fit_is_refused(tmp_path, meta, message):
    path = write_dat(tmp_path / "x.dat", np.zeros((2, 4), np.int64))
    (tmp_path / "x.dat.meta").write_text(meta)
    with pytest.raises(DataError, match=message):
        DatStore(path, pad_id=0)


def test_a_padded_file_without_meta_is_refused(tmp_path):
    path = write_dat(tmp_path / "x.dat", np.zeros((2, 4), np.int64))
    (tmp_path / "x.dat.meta").unlink()
    with pytest.raises(DataError, match=r"x\.dat\.meta beside it"):
        DatStore(path, pad_id=0)
