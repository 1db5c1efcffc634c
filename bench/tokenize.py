"""Texts a second, size of the token file and peak memory of tokenising, beside DEXML's own script.

    python bench/tokenize.py --data Datasets/EURLEX57K
    python bench/tokenize.py --data Datasets/EURLEX57K --peer ../DEXML --peer-python ../venv4/bin/python --json out.json
    python bench/tokenize.py --data Datasets/Iconclass-KW-en --texts 500 --repeats 1      # a laptop: seconds

bench/tokenizing.py holds the work. This file has the name of a module of the standard library that most others load,
and a script's folder is searched first: whoever means that module gets it here.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def load_the_other() -> None:
    """Puts the standard library's module in this one's place."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != HERE]
    spec = importlib.machinery.PathFinder.find_spec("tokenize", elsewhere)
    assert spec is not None and spec.loader is not None
    sys.modules["tokenize"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "tokenize":
    load_the_other()
elif __name__ == "__main__":
    sys.path[0] = str(HERE.parent)
    from bench.report import run_cli
    from bench.tokenizing import main

    run_cli(main, str(__doc__))
