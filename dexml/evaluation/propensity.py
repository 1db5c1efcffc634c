"""Inverse propensities of labels: how much a hit on a rare label counts in PSP@k and PSnDCG@k.

Jain, Prabhu, Varma, "Extreme Multi-label Loss Functions" (KDD 2016). The constants A, B belong to a data set, by its
exact name: public code that looks for "wiki" or "amazon" in the name gets AmazonCat-13K and Wiki10-31K wrong.
"""

import math

import numpy as np
import numpy.typing as npt

DEFAULT_CONSTANTS = (0.55, 1.5)

_WIKIPEDIA = (0.5, 0.4)
_AMAZON = (0.6, 2.6)
_TABLE: dict[tuple[float, float], tuple[str, ...]] = {
    _WIKIPEDIA: (
        "WikiLSHTC-325K",
        "Wikipedia-500K",
        "WikiTitles-500K",
        "LF-Wikipedia-500K",
        "LF-WikiTitles-500K",
    ),
    _AMAZON: (
        "Amazon-670K",
        "Amazon-3M",
        "AmazonTitles-670K",
        "AmazonTitles-3M",
        "LF-Amazon-131K",
        "LF-AmazonTitles-131K",
        "LF-AmazonTitles-1.3M",
        "MM-AmazonTitles-300K",
    ),
    DEFAULT_CONSTANTS: (
        "EURLex-4K",
        "EURLex-4.3K",
        "RCV1-2K",
        "AmazonCat-13K",
        "AmazonCat-14K",
        "Wiki10-31K",
        "Delicious-200K",
        "WikiSeeAlsoTitles-350K",
        "LF-WikiSeeAlso-320K",
        "LF-WikiSeeAlsoTitles-320K",
    ),
}
_ALIASES = {
    "Wiki-500K": "Wikipedia-500K",
    "WikipediaLarge-500K": "Wikipedia-500K",
    "EURLEX57K": "EURLex-4.3K",
}
_BY_NAME = {name.casefold(): constants for constants, names in _TABLE.items() for name in names}
_BY_NAME |= {alias.casefold(): _BY_NAME[name.casefold()] for alias, name in _ALIASES.items()}


def propensity_constants(dataset: str, A: float | None = None, B: float | None = None) -> tuple[float, float, bool]:
    """(A, B, known) for a data set's whole name, upper or lower case; a given A or B wins over the table.

    `known` is False when a value is only the default of unknown data sets (0.55, 1.5): tell the user so.
    """
    named = _BY_NAME.get(dataset.casefold())
    table_A, table_B = named or DEFAULT_CONSTANTS
    known = named is not None or (A is not None and B is not None)
    return (table_A if A is None else A), (table_B if B is None else B), known


def inverse_propensity(n_l: npt.ArrayLike, N: int, A: float, B: float) -> npt.NDArray[np.float64]:
    """q_l = 1 + C (n_l + B)^-A with C = (ln N - 1)(B + 1)^A, float64 [L].

    n_l [L]: number of the N training points (before any validation cut) that have label l; 0 for unseen labels.
    """
    if N < 1 or not (math.isfinite(A) and math.isfinite(B) and A > 0 and B > 0):
        raise ValueError(f"propensity needs N >= 1 and finite A > 0, B > 0; got N={N}, A={A}, B={B}")
    counts = np.asarray(n_l, dtype=np.float64)
    bad = ~((counts >= 0) & (counts <= N))
    if bad.any():
        label = int(bad.argmax())
        raise ValueError(
            f"label {label} has n_l={counts.flat[label]:g}, outside 0..N={N}: count training points, do not sum weights"
        )
    # Under three points ln N < 1 and the model would weigh rare labels less; it means nothing there, so: all equal.
    C = max(0.0, math.log(N) - 1.0) * (B + 1.0) ** A
    return np.asarray(1.0 + C * (counts + B) ** -A, dtype=np.float64)
