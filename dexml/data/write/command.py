"""`dexml convert FOLDER DEST --to FORMAT`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dexml.data.write import WRITERS, convert


def convert_command(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="dexml convert", description="Write a data folder in another format.")
    parser.add_argument("folder", type=Path, help="data folder")
    parser.add_argument("dest", type=Path, help="the new folder")
    parser.add_argument("--to", required=True, choices=list(WRITERS), help="format")
    args = parser.parse_args(words)
    print(convert(args.folder, args.dest, args.to))
