"""`dexml tokenize` (also run as utils/tokenization_utils.py with DEXML's flags) and `dexml validate`."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dexml.data.store import TokenStore
from dexml.data.tokenize import tokenize_file

if TYPE_CHECKING:
    from dexml.data.findings import Finding
    from dexml.data.statistics import Statistics

COLUMNS = ("mean", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
WIDTH = 120  # of the table where there is no terminal


def tokenize_command(words: Sequence[str]) -> None:
    """Writes the token file of one text file and prints its path, rows, tokens and mean length."""
    parser = argparse.ArgumentParser(prog="dexml tokenize", description="Tokenise a text file, one text a line.")
    parser.add_argument("--data-path", required=True, help="text file, one item a line")
    parser.add_argument("--tf-max-len", type=int, default=32, help="cut to this many tokens, special ones included")
    named = "Hub id, folder or package:<name>/<folder>"
    parser.add_argument("--tf-token-type", default="bert-base-uncased", help=named)
    parser.add_argument("--num-threads", type=int, default=0, help="0: all cores; the ids are the same with any number")
    args = parser.parse_args(words)
    path = tokenize_file(args.data_path, args.tf_token_type, args.tf_max_len, args.num_threads)
    lengths = TokenStore.open(path).lengths
    mean = lengths.mean() if len(lengths) else 0.0
    print(f"{path}: {len(lengths)} rows, {lengths.sum(dtype=int)} tokens, mean length {mean:.1f}")


def validate_command(words: Sequence[str]) -> None:
    """Checks a folder as training does before it starts, and tells what is in it and what looks wrong.

    DataError for what training would refuse; SystemExit(1) for a warning when --strict is given.
    """
    parser = argparse.ArgumentParser(prog="dexml validate", description="Check a data folder and say what is in it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tf", metavar="NAME", help="count tokens too: Hub id, folder or package:<name>/<folder>")
    parser.add_argument("--max-len", type=int, default=128, help="tokens at which training cuts texts (128)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with histograms")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if there is a warning")
    args = parser.parse_args(words)
    from dexml.data.dataset import DataError, Dataset
    from dexml.data.findings import all_findings
    from dexml.data.statistics import Statistics

    if args.html and not os.access(args.html.absolute().parent, os.W_OK):
        raise DataError(f"--html {args.html}: {args.html.absolute().parent} is no folder to write to: name another")
    statistics = Statistics(Dataset.load(args.folder), args.tf, args.max_len)
    for held_out in args.folder.glob("val_inds_*.npy"):
        if (count := held_out.stem.removeprefix("val_inds_")).isdecimal():
            statistics.dataset.validation_rows(int(count), seed=0)
    findings = all_findings(statistics)
    print_validation(statistics, findings)
    if args.html:
        from dexml.report.command import write_data_page

        print(write_data_page(statistics, findings, args.html))
    if args.strict and any(finding.warns for finding in findings):
        raise SystemExit(1)


def print_validation(statistics: Statistics, findings: Sequence[Finding]) -> None:
    """A table of quantiles, then warnings with examples, then notes."""
    from rich.console import Console
    from rich.table import Table

    print(statistics.dataset.notices[0])
    table = Table("", *COLUMNS, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for one in statistics.measures:
        table.add_row(one.name, f"{one.mean:,.2f}", *(f"{value:,.0f}" for value in one.quantiles))
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)
    for text, warns, examples in findings:
        print(f"{'warning' if warns else 'note'}: {text}")
        for example in examples if warns else []:
            print(textwrap.indent(example, "    "))
