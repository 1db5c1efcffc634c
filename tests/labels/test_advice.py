"""The line of advice: its arithmetic, and that it names what fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dexml.labels.advice import Load, advice, fitting

SMALL = Load(4000, 512, 900, 2000, 800, label_tokens=6, query_tokens=40, weights=10_000_000, width=384)
LARGE = replace(SMALL, labels=1_300_000, queries=3000, positives=6000, mined=12_000, budget=50_000)


def test_costs_of_a_step() -> None:
    costs = SMALL.costs()
    queries = 6 * 10e6 * 512 * 40
    assert costs["all"] == pytest.approx(queries + 6 * 10e6 * 4000 * 6 + 8 * 512 * 4000 * 384)
    assert costs["in-batch"] == pytest.approx(queries + 6 * 10e6 * 900 * 6 + 8 * 512 * 900 * 384)
    assert costs["bank"] == pytest.approx(queries + 6 * 10e6 * 800 * 6 + 12 * 512 * 4000 * 384)
    assert LARGE.bank_bytes() == 1_300_000 * 384 * 8
    assert LARGE.bank_bytes(stored=2, delayed=True) == 1_300_000 * 384 * 10


def test_few_labels_are_all_encoded_many_are_kept_in_a_bank() -> None:
    assert fitting(SMALL) == "all"
    assert fitting(LARGE) == "bank"
    assert fitting(replace(LARGE, budget=100)) == "in-batch"


def test_the_line_names_every_side() -> None:
    line = advice(LARGE, "all", processes=4)
    assert line.startswith("label side all, bank would fit: TFLOP a step all ")
    assert all(f"{side} " in line for side in ("all", "in-batch", "shortlist", "bank"))
    assert line.endswith("a bank takes 1 GB a process")
    assert "which fits" in advice(LARGE, "bank", processes=1)
