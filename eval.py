"""Evaluate an exported model: python eval.py tst RUN, BUNDLE or CONFIG.yaml; python eval.py --help."""

import sys

from dexml.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
