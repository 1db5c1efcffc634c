"""What each label side would cost in a step, and which one fits: a line at the start of training.

Arithmetic, not measurement: a token costs 6 FLOP a weight of the encoder outside its embedding tables (forward and
backward), scores of n queries with m vectors of width D and their gradients 8 n m D, half of it once more where the
bank chooses labels. Sources: docs/scaling.md.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALL = 4.0  # all labels are worth it up to so many times the cost of the queries


@dataclass(frozen=True)
class Load:
    """A step of all processes together."""

    labels: int
    queries: int
    positives: float
    """labels of a batch, each counted once"""
    mined: int
    """labels that a shortlist adds, at most"""
    budget: int
    """labels that a bank makes anew"""
    label_tokens: float
    """of a label, on average"""
    query_tokens: float
    weights: int
    """of the encoder, outside its embedding tables"""
    width: int

    def encoding(self, texts: float, tokens: float) -> float:
        """FLOP of encoding texts with gradients."""
        return 6 * self.weights * texts * tokens

    def comparing(self, labels: float) -> float:
        """FLOP of the loss and its gradients over label vectors."""
        return 8 * self.queries * labels * self.width

    def costs(self) -> dict[str, float]:
        """FLOP of a step by label side."""
        queries = self.encoding(self.queries, self.query_tokens)
        pool = min(self.labels, self.positives + self.mined)
        fresh = {"all": self.labels, "in-batch": self.positives, "shortlist": pool, "bank": self.budget}
        compared = fresh | {"bank": 1.5 * self.labels}
        return {
            side: queries + self.encoding(n, self.label_tokens) + self.comparing(compared[side])
            for side, n in fresh.items()
        }

    def bank_bytes(self, stored: int = 4, delayed: bool = False) -> float:
        """Of the vectors, their gradients and what is owed, of all processes together."""
        return self.labels * self.width * (stored + 4 + 4 * delayed)


def fitting(load: Load) -> str:
    """All labels while they cost little beside the queries, a bank while its budget holds the batch's own labels."""
    costs = load.costs()
    if costs["all"] <= (1 + SMALL) * load.encoding(load.queries, load.query_tokens):
        return "all"
    return "bank" if load.positives < load.budget and costs["bank"] < costs["all"] else "in-batch"


def advice(load: Load, chosen: str, processes: int) -> str:
    """One line for the log."""
    told = ", ".join(f"{side} {cost / 1e12:.3g}" for side, cost in load.costs().items())
    gigabytes = load.bank_bytes() / processes / 1e9
    fits = fitting(load)
    end = "which fits" if fits == chosen else f"{fits} would fit"
    return f"label side {chosen}, {end}: TFLOP a step {told}; a bank takes {gigabytes:.2g} GB a process"
