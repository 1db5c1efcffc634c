"""`dexml prepare SOURCE DEST`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dexml.data.convert import FORMATS, Options, Split, prepare
from dexml.data.convert.formats import formats_table
from dexml.data.convert.writer import SPLIT_BY


def prepare_command(words: Sequence[str]) -> None:
    """Makes a data folder of the user's data and prints what is in it."""
    args = _parser().parse_args(words)
    columns = [name for given in args.text_column or () for name in given.split(",")]
    options = Options(columns, args.label_column, args.delimiter, args.split_column, args.group_column, args.vocab)
    split = Split(args.test_size, args.split_by, args.seed)
    made = prepare(
        args.source,
        args.dest,
        args.format,
        options=options,
        labels=args.labels,
        test=args.test,
        split=split,
        on_error=args.on_error,
    )
    print(made.path, *made.notices, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dexml prepare",
        description="Make a data folder of your data. (`dexml prepare iconclass` makes a built-in one.)",
        epilog=f"formats:\n{formats_table()}\n\nAn example of each: docs/your-data.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="file, folder, or Hub id")
    parser.add_argument("dest", type=Path, help="the new data folder")
    parser.add_argument("--format", choices=list(FORMATS), help="where SOURCE does not show it")
    parser.add_argument("--text-column", action="append", help="of a table; several, a,b, are joined by a space")
    parser.add_argument("--label-column", default="", help="of a table: a list, or names with a delimiter")
    parser.add_argument(
        "--delimiter", help="between the labels of one text (default: a comma, in tabbed files a space)"
    )
    parser.add_argument("--labels", metavar="FILE", help="label texts: id<TAB>text, one text a line, or .csv, .jsonl")
    parser.add_argument("--vocab", type=Path, metavar="FILE", help="line i is the word of feature i of a bag of words")
    parser.add_argument("--split-column", default="", help="of a table: train, test or dev")
    parser.add_argument("--test", metavar="SOURCE", help="the test points are those of this source")
    parser.add_argument("--test-size", type=float, default=0.2, help="share of test points where none are given")
    parser.add_argument("--split-by", choices=SPLIT_BY, default="rows", help="labels: so that some stay unseen")
    parser.add_argument("--group-column", default="", help="of a table: with --split-by groups, one group, one split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="skip: leave out, count and tell")
    return parser
