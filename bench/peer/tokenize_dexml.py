"""Runs the tokenising script of a DEXML checkout as it is, and writes the seconds it took; bench/tokenize.py calls it.

PEER_PYTHON bench/peer/tokenize_dexml.py SCRIPT TEXT TOKENIZER MAX_LEN THREADS RESULT
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path


def main(script: str, text: str, tokenizer: str, max_len: str, threads: str, result: str) -> None:
    sys.path[0] = str(Path(script).parent)  # as if the script had been started itself
    import torch.multiprocessing  # noqa: F401
    import tqdm  # type: ignore[import-untyped]  # noqa: F401
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(tokenizer)  # the libraries are loaded before the clock starts
    sys.argv = [script, "--data-path", text, "--tf-max-len", max_len, "--tf-token-type", tokenizer]
    sys.argv += ["--num-threads", threads]
    start = time.perf_counter()
    runpy.run_path(script, run_name="__main__")
    Path(result).write_text(json.dumps({"seconds": time.perf_counter() - start}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
