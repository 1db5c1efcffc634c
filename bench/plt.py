"""What exact search in a trained label tree costs beside beams, and what beams lose.

    python bench/plt.py Results/DEXML/EURLEX57K-Titles/plt                      # a run; 2,000 of its test texts
    python bench/plt.py RUN --texts 500 --beams 1 5 20 --json out.json          # a small machine

Texts are encoded once. The searches take turns, block by block; seconds are processor time of the searches alone.
"nodes" are classifiers evaluated for a text; exact search looks once more at what its first beam has seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).absolute().parents[1])

import argparse
import time
from typing import TYPE_CHECKING, Any

from bench.common import BenchError, positive, write_json
from dexml.machine import cores

if TYPE_CHECKING:
    from torch import Tensor

    from dexml.heads.plt import PLT

BLOCK, K = 256, 5


def main() -> None:
    args = _parse()
    import torch

    torch.set_num_threads(args.threads)
    head, z_ND, truth = _opened(args.run, args.texts)
    found: dict[int, list[Any]] = {width: [] for width in (0, *args.beams)}
    seconds = dict.fromkeys(found, 0.0)
    with torch.no_grad():
        for z in z_ND.split(BLOCK):
            for width, parts in found.items():
                head.cfg = head.cfg.model_copy(update={"plt_beam": width})
                began = time.process_time()
                parts.extend(head.found(z, K))
                seconds[width] += time.process_time() - began
    rows = [_row(width, seconds[width], parts, truth) for width, parts in found.items()]
    print(f"{len(z_ND):,} texts, {head.tree.n_nodes:,} nodes, {head.n_labels:,} labels, {args.threads} threads")
    print("search        P@1     P@3     P@5   nodes  CPU ms/text")
    for row in rows:
        print("{search:10}{P@1:7.2f} {P@3:7.2f} {P@5:7.2f} {nodes:7.0f} {ms:12.3f}".format(**row))
    if args.json:
        write_json(args.json, {"run": str(args.run), "texts": len(z_ND), "rows": rows})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of net plt, or its bundle")
    parser.add_argument("--texts", type=positive, default=2000)
    parser.add_argument("--beams", type=positive, nargs="+", default=[1, 5, 10, 50])
    parser.add_argument("--threads", type=positive, default=cores())
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _opened(run: Path, n: int) -> tuple[PLT, Tensor, Any]:
    """The head, the vectors [N, D] of evenly chosen test texts, and their truth."""
    import numpy as np

    from dexml.config import load_config
    from dexml.data.dataset import Dataset
    from dexml.data.tokens import TextTokens
    from dexml.heads.plt import PLT
    from dexml.hub.bundle import Bundle

    folder = run / "best" if (run / "best").is_dir() else run
    test = Dataset.load(load_config([folder / "dexml.yaml"]).data_dir, ("tst",)).tst
    bundle = Bundle.load(folder)
    head = getattr(bundle.finder, "head", None)
    if bundle.finder is None or not isinstance(head, PLT):
        raise BenchError(f"{run} is no label tree: train net plt")
    rows = np.unique(np.linspace(0, len(test.texts) - 1, n).astype(int))
    tokens = TextTokens([test.texts[i] for i in rows], bundle.encoder.tokenizer, bundle.encoder.max_len)
    return head, bundle.finder.embedder.part(tokens, np.arange(len(rows))), test.relevance[rows]


def _row(width: int, seconds: float, parts: list[Any], truth: Any) -> dict[str, Any]:
    import torch

    from dexml.evaluation.metrics import compute_metrics

    ids = torch.cat([part.lists(K)[0] for part in parts]).numpy()
    metrics = compute_metrics(ids, truth, ks=(1, 3, 5), recall_ks=(), mrr_k=1)
    nodes = torch.cat([part.evaluations for part in parts]).double().mean()
    found = {f"P@{k}": float(metrics[f"P@{k}"]) for k in (1, 3, 5)}
    name = f"beam {width}" if width else "exact"
    return {"search": name, **found, "nodes": float(nodes), "ms": 1000 * seconds / len(ids)}


if __name__ == "__main__":
    main()
