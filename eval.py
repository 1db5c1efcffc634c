"""Evaluate the exported model of a run: python eval.py tst CONFIG.yaml (or the config.yaml in the run's folder)."""

import sys

from dexml.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
