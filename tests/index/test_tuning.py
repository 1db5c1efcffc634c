from pathlib import Path

import numpy as np
import pytest

from dexml.index import KINDS, LabelIndex, LabelIndexError, exact_topk, recall_at, recall_report, tune
from tests.index.clouds import build, clouds

QUERIES = clouds(60, seed=5)
EXACT = exact_topk(QUERIES, clouds(600), 30)[0]


def naive_recall(found: list[list[int]], exact: list[list[int]], k: int) -> float:
    hits = sum(len({*row[:k]} & {*wanted[:k]} - {-1}) for row, wanted in zip(found, exact, strict=True))
    return hits / sum(sum(i >= 0 for i in wanted[:k]) for wanted in exact)


@pytest.mark.parametrize("k", [1, 3, 7, 9])
def test_recall_is_the_share_of_the_exact_labels_that_were_found(k: int) -> None:
    rng = np.random.default_rng(0)
    found, exact = (np.stack([rng.permutation(12)[:8] for _ in range(50)]) for _ in range(2))
    found[:, 6:] = -1
    exact[::3, 5:] = -1
    assert recall_at(found, exact, k) == pytest.approx(naive_recall(found.tolist(), exact.tolist(), k))


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_compares_with_exact_search(kind: str) -> None:
    index = build(kind, clouds(600))
    report = recall_report(index, QUERIES, EXACT, ks=(1, 10, 30))
    ids = index.search(QUERIES, 30)[0].tolist()
    assert report == {k: pytest.approx(naive_recall(ids, EXACT.tolist(), k)) for k in (1, 10, 30)}
    if KINDS[kind].lossless:
        assert recall_report(index, QUERIES, ks=(1, 10, 30)) == report


def test_the_report_of_a_small_index_counts_all_its_labels() -> None:
    assert recall_report(build("flat", clouds(5)), QUERIES) == {1: 1.0, 10: 1.0, 100: 1.0}


@pytest.mark.parametrize(("kind", "floor"), [("ivf", 1), ("ivfpq", 1), ("hnsw", 30)])
def test_tuning_finds_the_least_value_that_reaches_the_recall(kind: str, floor: int) -> None:
    index = build(kind, clouds(600), **({"M": 3} if kind == "hnsw" else {"nlist": 24, "nprobe": 1}))
    wanted = 0.95 if kind == "ivfpq" else 0.99
    chosen = tune(index, QUERIES, wanted, k=30, exact_ids=EXACT)
    value = chosen.parameters[index.knob]
    assert chosen.recall == recall_report(index, QUERIES, EXACT, (30,))[30] >= wanted
    assert (chosen.k, chosen.parameters) == (30, index.parameters) and chosen.ms_per_query > 0
    assert value > floor
    index.set_knob(value - 1)
    assert recall_report(index, QUERIES, EXACT, (30,))[30] < wanted


def test_tuning_is_deterministic_and_begins_at_the_cheapest() -> None:
    one, other = build("ivf", clouds(600)), build("ivf", clouds(600), nprobe=1)
    assert tune(one, QUERIES, 0.95, 10).parameters == tune(other, QUERIES, 0.95, 10).parameters
    assert tune(one, QUERIES, 0.01, 10).parameters["nprobe"] == 1
    assert tune(one, QUERIES, 1.0, 10).recall == 1.0


@pytest.mark.parametrize(("kind", "knob"), [("ivf", "nprobe"), ("hnsw", "efSearch")])
def test_the_choice_is_saved_with_the_index(kind: str, knob: str, tmp_path: Path) -> None:
    index = build(kind, clouds(600))
    before = index.parameters
    value = tune(index, QUERIES, 0.95, 20).parameters[knob]
    index.save(tmp_path)
    assert LabelIndex.load(tmp_path).parameters == before | {knob: value} != before


def test_a_recall_that_the_kind_cannot_reach_is_refused_and_changes_nothing() -> None:
    for kind, message in (
        ("ivfpq", r"kind 'ivfpq' finds 0\.\d+ of the best 30, not 0\.999 \(at nprobe=8\): .*more parts"),
        ("pq", r"kind 'pq' finds .*nothing to tune.*more parts, or take sq8"),
        ("sq8", r"kind 'sq8' finds .*take flat, ivf or hnsw"),
    ):
        index = build(kind, clouds(600))
        before = index.parameters
        with pytest.raises(LabelIndexError, match=message):
            tune(index, QUERIES, 0.999, 30, EXACT)
        assert index.parameters == before


def test_kinds_without_a_knob_are_measured() -> None:
    for kind in ("flat", "fp16"):
        chosen = tune(build(kind, clouds(600)), QUERIES, 0.9, 30, EXACT)
        assert chosen.parameters == {} and chosen.recall >= 0.99


def test_what_cannot_be_measured_is_refused() -> None:
    index = build("sq8", clouds(600))
    with pytest.raises(LabelIndexError, match=r"kind 'sq8' keeps rounded vectors: .*exact_ids"):
        tune(index, QUERIES)
    with pytest.raises(LabelIndexError, match=r"whole numbers \[60, 40 or more\], not int64 \(60, 30\)"):
        tune(index, QUERIES, k=40, exact_ids=EXACT)
    with pytest.raises(LabelIndexError, match=r"\[59, 10 or more\]"):
        recall_report(index, QUERIES[:59], EXACT, (10,))
    with pytest.raises(LabelIndexError, match=r"recall 1\.5"):
        tune(index, QUERIES, 1.5)
    for queries, labels in ((QUERIES[:0], clouds(5)), (QUERIES, clouds(0))):
        with pytest.raises(LabelIndexError, match="at least one query and one label"):
            tune(build("flat", labels), queries)
