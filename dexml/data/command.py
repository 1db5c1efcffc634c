"""`dexml tokenize`, also run as utils/tokenization_utils.py with DEXML's flags."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dexml.data.store import TokenStore
from dexml.data.tokenize import tokenize_file


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
