"""The quickstart's last word: its metrics beside simpler methods, and three predictions as text.

python utils/quickstart_report.py configs/Iconclass/quickstart.yaml
"""

import json
import sys

from dexml.config import load_config
from dexml.data.dataset import Dataset
from dexml.evaluation.table import metrics_table
from dexml.hub.bundle import Bundle

# TF-IDF references on the test points of Iconclass-KW-en: cosine to the label text, centroids mixed with it, 20 nearest
# neighbours (up to 3,000 test points each); and omikuji 0.5.2 with default settings (the whole test set).
REFERENCES = {
    "TF-IDF zero-shot": {"P@1": 39.1, "P@5": 21.1, "R@100": 62.8},
    "TF-IDF centroids + label text": {"P@1": 41.4, "P@5": 26.9, "R@100": 90.7},
    "TF-IDF 20-nearest-neighbour vote": {"P@1": 46.9, "P@5": 22.1, "R@100": 70.5},
    "linear label tree (omikuji)": {
        **{"P@1": 65.98, "P@3": 43.52, "P@5": 29.63, "R@100": 74.61},
        **{"PSP@1": 28.84, "PSP@3": 36.56, "PSP@5": 39.26},
    },
}
COLUMNS = ["P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5", "R@100"]
EXAMPLES = (0, 2400, 4800)  # rows of the test set, fixed beforehand


def main(words: list[str]) -> None:
    cfg = load_config(words)
    metrics = json.loads((cfg.out_dir / "metrics.json").read_text(encoding="utf-8"))
    print("\n" + metrics_table({**REFERENCES, "dexml quickstart": metrics}, COLUMNS))
    data = Dataset.load(cfg.data_dir)
    texts = data.tst.texts.read(list(EXAMPLES))
    for row, text, found in zip(EXAMPLES, texts, Bundle.load(cfg.out_dir / "best").predict(texts, 5), strict=True):
        truth = {data.label_texts[i] for i in data.tst.relevance[row].indices.tolist()}
        print(f"\n{text}\n  labels:      {', '.join(sorted(truth))}")
        print("  predictions: " + ", ".join(f"{'*' * (label in truth)}{label} {score:.2f}" for label, score in found))
    print(f"\n(* = right)  The encoder, its labels and their index are in {cfg.out_dir / 'best'}; try:")
    print(f'  .venv/bin/dexml predict {cfg.out_dir / "best"} "a knight fights a dragon by the sea"')
    print(f"  .venv/bin/dexml report {cfg.out_dir}      # one HTML page: intervals, breakdowns, calibration, examples")
    print(f"  .venv/bin/dexml serve {cfg.out_dir} --texts {cfg.data_dir}      # a service, and a page to try it on")


if __name__ == "__main__":
    main(sys.argv[1:])
