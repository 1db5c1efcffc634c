"""The metrics in plain Python loops, straight from the definitions: the slow twin of dexml.evaluation.metrics."""

from collections.abc import Sequence
from math import log2


def naive_metrics(
    rows: Sequence[Sequence[tuple[int, float]]],
    truths: Sequence[set[int]],
    q: Sequence[float],
    ks: Sequence[int],
    filters: Sequence[set[int]],
    empty: str = "count",
) -> dict[str, float]:
    """Percent. rows: per point the (label, score) pairs in any order; q: inverse propensity of every label."""
    ranked = [
        [label for label, _ in sorted(row, key=lambda pair: (-pair[1], pair[0])) if label not in dropped]
        for row, dropped in zip(rows, filters, strict=True)
    ]
    points = list(zip(ranked, [y - f for y, f in zip(truths, filters, strict=True)], strict=True))
    counted = len(points) if empty == "count" else sum(bool(truth) for _, truth in points)
    result: dict[str, float] = {}
    for k in ks:
        sums = dict.fromkeys(["P", "R", "RP", "nDCG", "MRR", "Hit"], 0.0)
        ratios = {name: [0.0, 0.0] for name in ("PSP", "PSnDCG", "PSR")}
        for ranking, truth in points:
            if not truth:
                continue
            hits = [j for j, label in enumerate(ranking[:k], start=1) if label in truth]
            reachable = min(k, len(truth))
            ideal = sum(1 / log2(j + 1) for j in range(1, reachable + 1))
            best = sorted((q[label] for label in truth), reverse=True)[:reachable]
            sums["P"] += len(hits) / k
            sums["R"] += len(hits) / len(truth)
            sums["RP"] += len(hits) / reachable
            sums["nDCG"] += sum(1 / log2(j + 1) for j in hits) / ideal
            sums["MRR"] += 1 / hits[0] if hits else 0
            sums["Hit"] += bool(hits)
            reached = [(j, q[ranking[j - 1]]) for j in hits]
            for side, cells in enumerate((reached, list(enumerate(best, start=1)))):
                ratios["PSP"][side] += sum(value for _, value in cells)
                ratios["PSnDCG"][side] += sum(value / log2(j + 1) for j, value in cells) / ideal
                ratios["PSR"][side] += sum(value for _, value in cells) / len(truth)
        result |= {f"{name}@{k}": 100 * total / counted for name, total in sums.items()}
        result |= {f"{name}@{k}": 100 * above / below if below else 0.0 for name, (above, below) in ratios.items()}
    return result
