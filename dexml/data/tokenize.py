"""From a text file to its token file, streaming on all cores; and the token file that belongs to a text file."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from dexml.data.files import DataError
from dexml.data.store import DatStore, Ids, OnlineTokens, PartialTokens, TokenInfo, Tokens, TokenStore, write_store
from dexml.data.textfile import Lines
from dexml.data.tokenizer import RowTokenizer, load_tokenizer
from dexml.machine import cores

__all__ = ["load_tokenizer", "open_tokens", "token_path", "tokenize_file"]

log = logging.getLogger(__name__)
BATCH = 1024  # lines a thread encodes at a time
SAMPLE = 256  # rows of a foreign file compared with the tokenizer


def token_path(text_path: str | Path, tokenizer_name: str, max_len: int, suffix: str = ".tokens") -> Path:
    """`raw/trn_X.txt` -> `raw/trn_X.bert-base-uncased_128.tokens` (DEXML's own file has the suffix `.dat`)."""
    name = tokenizer_name.replace("/", "_").replace(":", "_")
    return Path(text_path).with_suffix(f".{name}_{max_len}{suffix}")


def tokenize_file(text_path: str | Path, tokenizer_name: str, max_len: int, num_workers: int = 0) -> Path:
    """The path of the token file beside the text, made unless it fits already; `num_workers` threads, 0 = all cores.

    Memory is bounded by a few batches a thread, whatever the size of the text. A killed run goes on where it was.
    """
    lines, tokenizer = Lines(text_path), RowTokenizer(load_tokenizer(tokenizer_name), max_len)
    return _build(lines, tokenizer, token_path(text_path, tokenizer_name, max_len), num_workers)


def open_tokens(
    text_path: str | Path,
    tokenizer_name: str,
    max_len: int,
    online: bool = False,
    num_workers: int = 0,
    build: bool = True,
) -> Tokens:
    """Our token file if it fits this text, tokenizer and length, else DEXML's `.dat` if it does, else a new file.

    With build=False nothing is written and a missing or stale file is a DataError.
    """
    lines, tokenizer = Lines(text_path), load_tokenizer(tokenizer_name)
    if online:
        return OnlineTokens(lines, tokenizer, max_len)
    rows = RowTokenizer(tokenizer, max_len)
    ours, theirs = (
        token_path(text_path, tokenizer_name, max_len),
        token_path(text_path, tokenizer_name, max_len, ".dat"),
    )
    reason = "is missing"
    if ours.exists():
        store, reason = _fresh(ours, TokenInfo.of(lines.path, rows))
        if store is not None:
            return store
    elif theirs.exists():
        return _checked_dat(theirs, lines, rows, _command(lines.path, tokenizer_name, max_len))
    if not build:
        raise DataError(f"{ours} {reason}: run `{_command(lines.path, tokenizer_name, max_len)}`")
    log.log(logging.WARNING if ours.exists() else logging.INFO, "%s %s: tokenising %s", ours, reason, lines.path)
    return TokenStore.open(_build(lines, rows, ours, num_workers))


def _command(text_path: Path, tokenizer_name: str, max_len: int) -> str:
    script = "python utils/tokenization_utils.py"
    return f"{script} --data-path {text_path} --tf-max-len {max_len} --tf-token-type {tokenizer_name}"


def _fresh(path: Path, wanted: TokenInfo) -> tuple[TokenStore | None, str]:
    """The store, or None and why it cannot be used."""
    try:
        store = TokenStore.open(path)
    except DataError:
        return None, "is damaged or of another version"
    if store.info == wanted:
        return store, ""
    what = "text" if store.info.text_sha256 != wanted.text_sha256 else "tokenizer"
    return None, f"is stale (the {what} has changed)"


def _checked_dat(path: Path, lines: Lines, tokenizer: RowTokenizer, command: str) -> DatStore:
    """DEXML's file, after comparing its shape and a spread sample of its rows with the text."""
    store = DatStore(path, tokenizer.pad_id)
    mend = f"delete it or run `{command}`"
    if len(store) != len(lines):
        raise DataError(f"{path} has {len(store)} rows but {lines.path} has {len(lines)} lines: {mend}")
    if store.width != tokenizer.max_len:
        raise DataError(f"{path} has {store.width} columns but the maximal length is {tokenizer.max_len}: {mend}")
    rows = np.unique(np.linspace(0, len(lines) - 1, SAMPLE).astype(np.int64)) if len(lines) else np.empty(0, np.int64)
    ids, lengths = store.gather(rows)
    expected_ids, expected_lengths = tokenizer.encode(lines.read(rows))
    if not (np.array_equal(lengths, expected_lengths) and np.array_equal(ids, expected_ids)):
        raise DataError(f"{path} was made by another tokenizer or from other text: {mend}")
    if lines.path.stat().st_mtime > path.stat().st_mtime:
        log.warning("%s is older than %s; a sample of rows agrees. If the text was edited: %s", path, lines.path, mend)
    return store


def _build(lines: Lines, tokenizer: RowTokenizer, path: Path, num_workers: int) -> Path:
    info = TokenInfo.of(lines.path, tokenizer)
    with PartialTokens.open(path, info) as partial:
        if _fresh(path, info)[0] is None:  # it may have been made while this process waited for another
            _tokenize(lines, tokenizer, partial, num_workers or cores())
            write_store(path, partial)
    return path


def _tokenize(lines: Lines, tokenizer: RowTokenizer, partial: PartialTokens, workers: int) -> None:
    """Appends the rows that are not there yet."""
    if partial.rows:
        log.info("%s: going on after %d of %d lines", lines.path, partial.rows, len(lines))
    with _progress() as progress:
        task = progress.add_task(f"tokenising {lines.path.name}", total=len(lines), completed=partial.rows)
        for ids, lengths in _encoded(lines, partial.rows, tokenizer, workers):
            partial.append(ids, lengths)
            progress.advance(task, len(lengths))


def _encoded(lines: Lines, first: int, tokenizer: RowTokenizer, workers: int) -> Iterator[tuple[Ids, Ids]]:
    """Batches from line `first` on, in the order of the file; at most two a thread are held at a time."""

    def encode(rows: range) -> tuple[Ids, Ids]:
        return tokenizer.encode(lines[rows.start : rows.stop])

    batches = (range(max(first, rows.start), rows.stop) for rows in lines.batches(BATCH) if rows.stop > first)
    waiting: deque[Future[tuple[Ids, Ids]]] = deque()
    # Threads are enough, since the encoder lets go of the interpreter lock, and nothing is forked.
    with _one_thread_a_call(), ThreadPoolExecutor(workers) as pool:
        for rows in batches:
            waiting.append(pool.submit(encode, rows))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """Our threads are the parallelism: the encoder's own pool would add to it and outlive a later fork."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} lines/s")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
