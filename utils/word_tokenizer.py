"""A tokenizer of whole words, for BiLSTMs over word vectors; name its folder as tf_token_type.

python utils/word_tokenizer.py Datasets/X/raw/trn_X.txt Datasets/X/words
"""

import argparse
from pathlib import Path

from dexml.data.textfile import Lines
from dexml.data.words import write_tokenizer

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, help="one text a line")
    parser.add_argument("folder", type=Path, help="where the tokenizer goes")
    args = parser.parse_args()
    print(f"{args.folder}: {write_tokenizer(args.folder, Lines(args.texts))} tokens")
