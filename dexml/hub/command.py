"""The command line of `dexml predict`. Light: the libraries load when the words are known to be right."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dexml.hub.bundle import Bundle


def predict_command(words: Sequence[str]) -> None:
    """Prints the labels of each text."""
    args = _parse(words)
    from dexml.hub.bundle import Bundle

    bundle = Bundle.load(args.bundle)
    texts = _checked_texts(args.texts)
    show = _as_json if args.jsonl else _as_text
    show(bundle, texts, args.top_k, args.threshold)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dexml predict", description="The best labels of each text.")
    parser.add_argument("bundle", type=Path, help="the best/ folder of a run")
    parser.add_argument("texts", nargs="*", help="texts; without any, one a line from standard input")
    parser.add_argument("--top-k", type=int, default=5, help="labels of each text")
    parser.add_argument("--threshold", type=float, help="only labels with a probability above this, such as 0.5")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a text")
    args = parser.parse_args(words)
    if args.top_k < 1:
        parser.error(f"--top-k is {args.top_k}: expected 1 or more")
    if args.threshold is not None and not 0 <= args.threshold < 1:
        parser.error(f"--threshold is {args.threshold}: expected a probability, at least 0 and below 1")
    return args


def _as_text(bundle: Bundle, texts: Sequence[str], k: int, threshold: float | None) -> None:
    for text, found in zip(texts, bundle.predict(texts, k, threshold), strict=True):
        print(text)
        for label, score in found:
            print(f"  {score:.3f}  {label}")


def _as_json(bundle: Bundle, texts: Sequence[str], k: int, threshold: float | None) -> None:
    for line in bundle.predict_lines(texts, k, threshold):
        print(line)


def _checked_texts(given: Sequence[str]) -> list[str]:
    """The texts of the command line or, without any, the lines of standard input; DataError names a bad one."""
    from dexml.data.files import DataError

    texts = list(given)
    for number, line in enumerate([] if given else sys.stdin.buffer, start=1):
        try:
            texts.append(line.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise DataError(f"standard input:{number}: not valid UTF-8 (byte 0x{line[error.start]:02x})") from None
    blank = next((number for number, text in enumerate(texts, start=1) if not text.strip()), None)
    if blank is not None:
        raise DataError(f"{'text ' if given else 'standard input:'}{blank}: an empty text has no labels; leave it out")
    if not texts:
        raise DataError("no texts: give them after the bundle, or one a line on standard input")
    return texts
