"""Search in groups: the worked example, brute force, shards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.heads import group_search
from dexml.heads.candidates import Groups
from dexml.heads.group_search import GroupSearch
from tests.heads.test_candidates import TOY, G, some_groups

LOGITS = [0.5, -1, 0, 0.3, -0.2, 2, -0.5]  # of labels 0..6
ONE = torch.ones(1, 1)


def toy_table() -> Tensor:
    table = torch.full((9, 1), 99.0)  # a value in an empty place changes nothing
    table[TOY.place_of, 0] = torch.tensor(LOGITS)
    return table


SEARCH = GroupSearch(TOY, toy_table())


def test_two_clusters() -> None:
    ids, scores = SEARCH.best(G, ONE, 2, 7)
    assert ids.tolist() == [[0, 2, 5, 1, 6, -1, -1]]
    assert scores[0, :5].tolist() == pytest.approx([0.548260, 0.440399, 0.440399, 0.236883, 0.188770], abs=1e-6)
    assert (scores[0, 5:] == -torch.inf).all()
    assert SEARCH.best(G, ONE, 2, 3)[0].tolist() == [[0, 2, 5]]


def test_all_clusters() -> None:
    ids, scores = SEARCH.best(G, ONE, 3, 9)
    assert ids.tolist() == [[0, 2, 5, 1, 6, 3, 4, -1, -1]]
    assert scores[0, 5:7].tolist() == pytest.approx([0.154491, 0.121068], abs=1e-6)
    assert SEARCH.exact(G, ONE, 9)[0].tolist() == ids.tolist()


def test_exact_search_leaves_clusters_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    among = GroupSearch._among

    def watched(self: GroupSearch, chosen: Tensor, *args: object) -> tuple[Tensor, Tensor]:
        opened.extend(chosen.flatten().tolist())
        return among(self, chosen, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(GroupSearch, "_among", watched)
    assert SEARCH.exact(G, ONE, 3)[0].tolist() == [[0, 2, 5]]
    assert opened == [0, 2]


def brute(groups: Groups, g: Tensor, query: Tensor, table: Tensor, k: int) -> list[list[int]]:
    lists = []
    for i in range(len(g)):
        scored = []
        for place, label in enumerate(groups.label_at.flatten().tolist()):
            if label >= 0:
                group = g[i, place // groups.width].float().sigmoid()
                scored.append((-float((table[place] @ query[i]).float().sigmoid() * group), label))
        ids = [label for _, label in sorted(scored)[:k]]
        lists.append(ids + [-1] * (k - len(ids)))
    return lists


def test_exact_search_is_brute_force() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        groups = some_groups(rng, int(rng.integers(1, 40)))
        g = torch.from_numpy(rng.integers(-3, 4, (3, groups.count)) * 1.0)
        query = torch.from_numpy(rng.integers(-2, 3, (3, 2)) * 1.0)
        table = torch.from_numpy(rng.integers(-2, 3, (groups.label_at.numel(), 2)) * 1.0)
        k = int(rng.integers(1, 12))
        expected = brute(groups, g, query, table, k)
        search = GroupSearch(groups, table)
        assert search.exact(g, query, k)[0].tolist() == expected
        assert search.best(g, query, groups.count, k)[0].tolist() == expected


def test_saturated_probabilities_still_give_ties_to_the_smaller_id() -> None:
    table = torch.full((9, 1), 30.0)
    g = torch.tensor([[20.0, 40, 30]])  # all of them 1 in float32
    assert GroupSearch(TOY, table).exact(g, ONE, 3)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("cells", [1, 6, 1 << 22])
def test_the_size_of_blocks_and_shards_changes_nothing(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(group_search, "CELLS", cells)
    torch.manual_seed(0)
    g, query, table = torch.randn(5, 3), torch.randn(5, 4), torch.randn(9, 4)
    ids, scores = GroupSearch(TOY, table).best(g, query, 2, 7)
    exact = GroupSearch(TOY, table).exact(g, query, 7)
    parts = [GroupSearch(TOY, table[3 * r : 3 * r + 3], r) for r in range(3)]
    for whole, found in (
        ((ids, scores), [part.best(g, query, 2, 7) for part in parts]),
        (exact, [part.exact(g, query, 7) for part in parts]),
    ):
        for i in range(5):
            cells_of = [
                (-float(s), int(j)) for one, two in found for j, s in zip(one[i], two[i], strict=True) if j >= 0
            ]
            best = sorted(cells_of)[:7]
            assert [j for _, j in best] == [j for j in whole[0][i].tolist() if j >= 0]
