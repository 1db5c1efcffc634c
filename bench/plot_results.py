"""The README's picture from docs/results.json: python bench/plot_results.py docs/results.json docs/results.png

The JSON maps data set -> method -> metric -> percent. Needs matplotlib (pip install 'dexml[report]').
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS = "#1f6f8b"
OTHERS = ("#c9c9c9", "#a9a9a9", "#8a8a8a", "#d8b26e")


def main(source: str, target: str, metrics: tuple[str, ...] = ("P@1", "P@5", "R@100")) -> None:
    results = json.loads(Path(source).read_text(encoding="utf-8"))
    figure, axes = plt.subplots(1, len(results), figsize=(5.2 * len(results), 3.4), squeeze=False)
    for axis, (dataset, methods) in zip(axes[0], results.items(), strict=True):
        width = 0.8 / len(methods)
        for i, (method, values) in enumerate(methods.items()):
            colour = OURS if method.startswith("dexml") else OTHERS[i % len(OTHERS)]
            places = [m + (i - (len(methods) - 1) / 2) * width for m in range(len(metrics))]
            heights = [values.get(metric, 0) for metric in metrics]
            bars = axis.bar(places, heights, width * 0.94, color=colour, label=method)
            axis.bar_label(bars, [f"{h:.0f}" if h else "" for h in heights], fontsize=7, padding=1)
        axis.set_xticks(range(len(metrics)), metrics)
        axis.set_ylim(0, 112)
        axis.set_yticks([])
        axis.set_title(dataset, fontsize=11)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False, ncols=2, loc="upper left")
    figure.tight_layout()
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:3])
