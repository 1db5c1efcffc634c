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
        sums = dict.fromkeys(["P", "R", "RP", "nDCG", "MRR"], 0.0)
        psp, psp_best, psn, psn_best = 0.0, 0.0, 0.0, 0.0
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
            psp += sum(q[ranking[j - 1]] for j in hits)
            psp_best += sum(best)
            psn += sum(q[ranking[j - 1]] / log2(j + 1) for j in hits) / ideal
            psn_best += sum(value / log2(j + 1) for j, value in enumerate(best, start=1)) / ideal
        result |= {f"{name}@{k}": 100 * total / counted for name, total in sums.items()}
        result[f"PSP@{k}"] = 100 * psp / psp_best if psp_best else 0.0
        result[f"PSnDCG@{k}"] = 100 * psn / psn_best if psn_best else 0.0
    return result
