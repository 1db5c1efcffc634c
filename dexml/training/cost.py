"""What training cost since the last evaluation, kept in the checkpoint and told in metrics.jsonl."""

from __future__ import annotations

from dexml.distributed import World
from dexml.machine import peak_mb


def add_step(cost: dict[str, float], seconds: float, encoded: dict[str, int]) -> None:
    """Counts a step of this rank: `seconds` from the end of the one before, `tokens` and `labels` encoded."""
    for name, spent in {"steps": 1, "seconds": seconds, **encoded}.items():
        cost[name] = cost.get(name, 0) + spent


def joined(world: World, cost: dict[str, float]) -> dict[str, float]:
    """On rank 0 the tokens and labels of all ranks with its own steps and seconds, on the others nothing."""
    ranks = world.gather_objects(cost)
    if not world.is_main:
        return {}
    return {**cost, **{name: sum(rank.get(name, 0) for rank in ranks) for name in ("tokens", "labels")}}


def told(world: World, cost: dict[str, float], eval_seconds: float) -> dict[str, float]:
    """The keys of an evaluation that say what it took to get there; right on rank 0, the one that writes them."""
    total, peaks = joined(world, cost), world.gather_objects(peak_mb())
    steps, seconds = max(1, total.get("steps", 0)), total.get("seconds", 0.0)
    return {
        "seconds": round(seconds, 3),
        "eval_seconds": round(eval_seconds, 3),
        "tokens_per_s": round(total.get("tokens", 0) / max(seconds, 1e-9), 1),
        "tokens_per_step": round(total.get("tokens", 0) / steps, 1),
        "labels_per_step": round(total.get("labels", 0) / steps, 1),
        "peak_mb": round(max(peaks), 1),
    }
