"""What must hold for any batch: order of labels, extreme scores, few and many positives; errors of bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexml.losses import KEPT, MASKED, Positives, TopK, decoupled_softmax, softmax, tiled
from tests.losses.naive import LOSSES, random_batch, random_positives
from tests.losses.ranks import run_ranks, shard
from tests.losses.test_tiled import assert_same, dense_twin, run

shapes = st.tuples(st.integers(2, 6), st.integers(2, 40), st.integers(0, 10_000))
few = settings(max_examples=15, deadline=None)


@few
@given(name=st.sampled_from(LOSSES), shape=shapes, tile=st.integers(1, 50), share=st.sampled_from([0.05, 0.5, 1.0]))
def test_tiled_equals_dense_on_any_batch(name, shape, tile, share):
    n_rows, n_cols, seed = shape
    query, label = random_batch(n_rows, n_cols, 3, seed)
    positives = random_positives(n_rows, n_cols, seed, share=share)
    k = min(3, n_cols - 1)
    got = run(name, query, label, positives, 1.0, k=k, tile_cols=tile)
    assert_same(got, dense_twin(name, query, label, positives, 1.0, k=k), atol=1e-8, rtol=1e-8)


@few
@given(name=st.sampled_from(LOSSES), shape=shapes)
def test_the_order_of_labels_does_not_matter(name, shape):
    n_rows, n_cols, seed = shape
    query, label = random_batch(n_rows, n_cols, 3, seed)
    p = random_positives(n_rows, n_cols, seed)
    order = torch.randperm(n_cols, generator=torch.Generator().manual_seed(seed))
    place = torch.empty_like(order)
    place[order] = torch.arange(n_cols)
    moved = Positives.from_csr(p.indptr, place[p.cols], p.weights, p.role)
    total, dx, dz = run(name, query, label, p, 1.0, k=1, tile_cols=7)
    assert_same(run(name, query, label[order], moved, 1.0, k=1, tile_cols=7), (total, dx, dz[order]), 1e-8, 1e-8)


@few
@given(name=st.sampled_from([n for n in LOSSES if n != "bce"]), shape=shapes)
def test_row_gradients_add_up_to_zero(name, shape):
    n_rows, n_cols, seed = shape
    sim, _ = random_batch(n_rows, n_cols, n_cols, seed)
    p = random_positives(n_rows, n_cols, seed)
    _, grad, _ = run(name, sim, torch.eye(n_cols, dtype=sim.dtype), p, 1.0, k=1, tile_cols=5)
    assert float(grad.sum(1).abs().max()) < 1e-9


def test_every_label_twice_raises_the_normaliser_by_ln_two():
    query, label = random_batch(3, 8, 4, 0)
    twice, positives = torch.cat([label, label]), Positives.from_csr([0, 1, 2, 3], [0, 3, 7])
    one = tiled("softmax", query, label, positives, 1.0, tile_cols=8)
    two = tiled("softmax", query, twice, positives, 1.0, tile_cols=8)
    assert float(two.total - one.total) == pytest.approx(3 * math.log(2))
    # the copy of a positive is masked, so that the negatives just double
    masked = Positives.from_csr([0, 2, 4, 6], [0, 8, 3, 11, 7, 15], role=[KEPT, MASKED] * 3)
    one = tiled("decoupled-softmax", query, label, positives, 1.0, tile_cols=8)
    two = tiled("decoupled-softmax", query, twice, masked, 1.0, tile_cols=8)
    raised = decoupled_softmax(query @ label.T + math.log(2) * (1 - cells(positives, 8)), positives)
    assert float(two.total) == pytest.approx(float(raised.total))
    assert float(two.total) > float(one.total)


def cells(positives, n_cols):
    grid = torch.zeros(positives.n_rows, n_cols)
    grid[positives.rows, positives.cols] = 1
    return grid


@pytest.mark.parametrize("name", LOSSES)
def test_one_positive_and_three_hundred_in_one_tile_and_spread(name):
    query, label = random_batch(3, 900, 4, 1)
    together, spread = torch.arange(300), torch.arange(300) * 3
    cols = torch.cat([together, spread, torch.tensor([899])])
    positives = Positives.from_csr([0, 300, 600, 601], cols)
    got = run(name, query, label, positives, 1.0, tile_cols=300)
    assert_same(got, dense_twin(name, query, label, positives, 1.0), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_scores_of_plus_and_minus_eighty_stay_finite(name, dtype):
    sim = torch.tensor([[80.0, -80, 0, 80, -80, 1], [-80.0, 80, 80, 0, 1, -80]], dtype=dtype)
    positives = Positives.from_csr([0, 2, 4], [0, 1, 0, 5])
    got = run(name, sim, torch.eye(6, dtype=dtype), positives, 1.0, k=2, tile_cols=4)
    want = dense_twin(name, sim.double(), torch.eye(6, dtype=torch.float64), positives, 1.0, k=2)
    assert bool(torch.isfinite(got[1]).all() and torch.isfinite(got[2]).all())
    if not name.startswith("topk"):  # between the two leaders and the rest any t is a root
        assert got[0] == pytest.approx(want[0], rel=1e-5)
        torch.testing.assert_close(got[1].double(), want[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_one_label_only(name):
    query, label = random_batch(2, 1, 3, 2)
    positives = Positives.from_csr([0, 1, 1], [0])
    if name.startswith("topk"):
        with pytest.raises(ValueError, match=r"topk\.k: 1 of 1 labels"):
            run(name, query, label, positives, 1.0, k=1)
        return
    total, dx, dz = run(name, query, label, positives, 1.0, k=1)
    assert_same((total, dx, dz), dense_twin(name, query, label, positives, 1.0, k=1))
    if name != "bce":
        assert total == 0


@pytest.mark.parametrize("tau", [1e-3, 1e3])
@pytest.mark.parametrize("name", ["softmax", "bce", "decoupled-softmax"])
def test_extreme_temperatures(name, tau):
    query, label = random_batch(4, 60, 4, 3)
    positives = random_positives(4, 60, 3)
    got = run(name, query, label, positives, tau, tile_cols=13)
    assert_same(got, dense_twin(name, query, label, positives, tau), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("k_leaders_ahead", [1, 2])
def test_soft_topk_behind_outliers_gives_finite_gradients(k_leaders_ahead):
    sim = torch.randn((1, 30), generator=torch.Generator().manual_seed(0))
    sim[0, :k_leaders_ahead] = 1000.0
    for cdf in ("logistic", "laplace"):
        for hit in (0, 20):
            got = tiled("topk", sim, torch.eye(30), Positives.from_csr([0, 1], [hit]), 1.0, topk=TopK(1, 2.0, cdf))
            assert bool(torch.isfinite(got.total))
            assert bool(torch.isfinite(got.grad_query).all())


GOOD = {"query_GD": torch.ones(2, 3), "label_SD": torch.ones(4, 3), "positives": Positives.from_csr([0, 1, 2], [0, 3])}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tau": 0.0}, "tau: must be a positive number, got 0.0"),
        ({"tau": -1.0}, "tau: must be"),
        ({"tau": float("nan")}, "tau: must be"),
        ({"loss": "hinge"}, "loss: 'hinge' is not one of softmax, bce, decoupled-softmax, topk"),
        ({"query_GD": torch.ones(3, 3)}, "positives: 2 rows for 3 queries"),
        ({"query_GD": torch.ones(2, 5)}, r"query_GD, label_SD: need \[G, D\] and \[S, D\]"),
        ({"query_GD": torch.ones(2, 3).half()}, "query_GD, label_SD: need one type of"),
        ({"label_SD": torch.ones(3, 3)}, r"positives\.cols: 0\.\.3 reaches outside the 3 labels"),
        ({"label_SD": torch.ones(4, 3, device="meta")}, "need one device, got cpu, meta, cpu"),
        ({"tile_cols": 0}, "tile_rows, tile_cols: need"),
        ({"tile_rows": -1}, "tile_rows, tile_cols: need"),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        tiled(**({"loss": "softmax", "tau": 1.0} | GOOD | change))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", LOSSES)
def test_values_that_are_not_finite_are_named(name, value):
    query, label = random_batch(2, 9, 3, 4)
    positives = Positives.from_csr([0, 1, 2], [0, 3])
    label[5, 1] = value
    with pytest.raises(ValueError, match="label_SD: 1 rows hold NaN or infinity, the first is row 5"):
        run(name, query, label, positives, 1.0)
    query[1, 0] = value
    with pytest.raises(ValueError, match="query_GD: 1 rows hold NaN or infinity, the first is row 1"):
        run(name, query, label, positives, 1.0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_overflow_are_named(name, sign):
    query, label = torch.full((1, 2), 1e30), sign * torch.full((5, 2), 1e30)
    with pytest.raises(ValueError, match="scores: NaN or infinite"):
        run(name, query, label, Positives.from_csr([0, 1], [0]), 1.0, k=1)


@pytest.mark.parametrize("name", LOSSES)
def test_every_rank_raises_when_one_shard_is_not_finite(name):
    query, label = random_batch(2, 9, 3, 5)
    label[7] = float("nan")
    positives = Positives.from_csr([0, 1, 2], [0, 3])
    raised = []

    def work(comm):
        start, stop = [(0, 5), (5, 9)][comm.rank]
        try:
            return tiled(
                name.removesuffix("-laplace"), query, label[start:stop], shard(positives, start, stop), 1.0, comm=comm,
                n_labels_total=9, topk=TopK(2, 2.0, "laplace" if name == "topk-laplace" else "logistic"),
            )  # fmt: skip
        except ValueError as error:
            raised.append((comm.rank, str(error)))

    run_ranks(2, work)
    messages = dict(raised)
    assert "another shard's are not" in messages[0]
    assert messages[1].startswith("label_SD: 1 rows")


def test_bce_on_shards_asks_for_the_number_of_labels():
    with pytest.raises(ValueError, match="n_labels_total: bce over label shards needs"):
        run_ranks(1, lambda comm: tiled("bce", tau=1.0, comm=comm, **GOOD))


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_positive_is_refused(name):
    query, label = random_batch(3, 9, 3, 6)
    with pytest.raises(ValueError, match="positives: no query has a kept positive"):
        run(name, query, label, Positives.from_csr([0, 0, 0, 0], []), 1.0)


def test_k_of_all_labels_is_refused_on_shards_too():
    query, label = random_batch(2, 9, 3, 6)
    positives = Positives.from_csr([0, 1, 2], [0, 3])
    with pytest.raises(ValueError, match=r"topk\.k: 9 of 9 labels"):
        run("topk", query, label, positives, 1.0, k=9)
    half = shard(positives, 0, 5)
    with pytest.raises(ValueError, match=r"topk\.k: 9 of 9 labels"):
        run_ranks(1, lambda comm: tiled("topk", query, label[:5], half, 1.0, comm=comm, n_labels_total=9, topk=TopK(9)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tile", [(1, 1), (2, 7), (0, 70), (5, 73), (0, 8192)])
@pytest.mark.parametrize("name", ["softmax", "decoupled-softmax"])
def test_weighted_negatives_equal_the_dense_form(name, tile, weighted):
    query, label = random_batch(6, 70, 4, 0)
    positives = random_positives(6, 70, 0)
    log_weights = torch.linspace(-3, 4, 70, dtype=torch.float64)
    got = run(
        name, query, label, positives, 0.7, tile_rows=tile[0], tile_cols=tile[1], weighted=weighted,
        log_weights=log_weights,
    )  # fmt: skip
    loss = {"softmax": softmax, "decoupled-softmax": decoupled_softmax}[name]
    query, label = query.requires_grad_(), label.requires_grad_()
    want = loss(query @ label.T / 0.7, positives, weighted=weighted, log_weights=log_weights)
    grads = torch.autograd.grad(want.mean, [query, label])
    assert_same(got, (float(want.total.detach()), *grads))


@pytest.mark.parametrize("name", ["softmax", "decoupled-softmax"])
def test_a_weight_of_three_is_a_negative_named_three_times(name):
    query, label = random_batch(3, 8, 4, 0)
    positives = Positives.from_csr([0, 1, 2, 3], [0, 3, 7])
    negatives_only = [1, 2, 4]
    repeated = torch.cat([label, label[negatives_only], label[negatives_only]])
    log_weights = torch.zeros(8, dtype=torch.float64)
    log_weights[negatives_only] = math.log(3)
    expected = run(name, query, repeated, positives, 1.0)
    got = run(name, query, label, positives, 1.0, log_weights=log_weights)
    assert got[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(got[1], expected[1], atol=1e-12, rtol=1e-12)


def test_weights_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="log_weights: not defined for bce"):
        tiled("bce", tau=1.0, log_weights=torch.zeros(5), **GOOD)
    n = len(GOOD["label_SD"])
    for wrong in (torch.zeros(n + 1), torch.full((n,), -math.inf)):
        with pytest.raises(ValueError, match=f"log_weights: need {n} finite numbers"):
            tiled("softmax", tau=1.0, log_weights=wrong, **GOOD)
