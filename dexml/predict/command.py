"""The command line of `dexml predict`. Light: the libraries load when the words are known to be right."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from dexml.hub.bundle import Bundle
    from dexml.predict.inputs import Input
    from dexml.predict.outputs import Writer


def predict_command(words: Sequence[str]) -> None:
    """Writes the labels of each text."""
    args = _parse(words)
    from dexml.predict.outputs import WRITERS, writer_of

    make = writer_of(args.output) if args.output else WRITERS[".jsonl" if args.jsonl else ".txt"]
    given = _input(args)
    bundle = _bundle(args)
    with _output(args.output) as file:
        writer = make(file, given, bundle.calibration is not None or args.threshold is not None, args.threshold)
        try:
            _predict(args, bundle, given, writer, file)
        except BrokenPipeError:  # who reads the output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        writer.close()
    if given.blank:
        print(f"{given.blank:,} of {given.total:,} texts are blank and have no labels", file=sys.stderr)


def _predict(args: argparse.Namespace, bundle: Bundle, given: Input, writer: Writer, file: BinaryIO) -> None:
    from dexml.predict.batchsize import BatchSize
    from dexml.predict.stream import predicted
    from dexml.training.progress import Bar

    talking = not args.texts and not args.input and sys.stdin.isatty()
    parts = predicted(bundle, given.items(), args.top_k, args.threshold, BatchSize(args.batch_size), talking)
    with Bar("predicting", given.total or 0, show=given.total is not None) as bar:
        for items, found in parts:
            writer.write(items, found)
            file.flush()
            bar.tick(len(items))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dexml predict", description="The best labels of each text.")
    parser.add_argument("model", help="a run, a bundle such as the best/ folder of a run, or a Hub id")
    parser.add_argument("texts", nargs="*", help="texts; without any, and without --input, lines of standard input")
    parser.add_argument("--top-k", type=int, default=5, help="labels of each text (default: 5)")
    parser.add_argument("--threshold", type=float, help="only labels with a probability above this, such as 0.5")
    parser.add_argument("--input", type=Path, help="file of texts: .txt, .csv, .tsv, .jsonl (also .gz), .parquet")
    parser.add_argument(
        "--text-column", action="append", default=[], help="of a table; repeated, they are joined (default: text)"
    )
    parser.add_argument("--output", type=Path, help="file to write: .jsonl, .csv, .tsv, .parquet, .txt")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a text on standard output")
    parser.add_argument("--add-labels", type=Path, help="file of new labels, one a line, for this call alone")
    parser.add_argument(
        "--batch-size", type=int, help="texts encoded at a time (default: the fastest, found on the way)"
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--amp", action="store_true", help="half precision where the processor has it")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    args = parser.parse_args(words)
    for name in ("top_k", "batch_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}: expected 1 or more")
    if args.threshold is not None and not 0 <= args.threshold < 1:
        parser.error(f"--threshold is {args.threshold}: expected a probability, at least 0 and below 1")
    if args.texts and args.input:
        parser.error("texts and --input: give one of them")
    return args


def _input(args: argparse.Namespace) -> Input:
    from dexml.predict.inputs import given_texts, read_file, standard_input

    if args.texts:
        return given_texts(args.texts)
    return read_file(args.input, args.text_column) if args.input else standard_input()


def _bundle(args: argparse.Namespace) -> Bundle:
    from dexml.data.textfile import Lines
    from dexml.hub.bundle import Bundle
    from dexml.hub.labelset import LabelSet

    new = [] if args.add_labels is None else list(Lines(args.add_labels))
    bundle = Bundle.load(args.model, device=args.device, amp=args.amp, revision=args.revision)
    if new:
        labels = LabelSet(bundle)
        labels.add(new)
        return labels.bundle
    return bundle


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears when all is written."""
    from dexml.data.files import atomic_write

    if path is None:
        yield sys.stdout.buffer
    else:
        with atomic_write(path) as file:
            yield file
