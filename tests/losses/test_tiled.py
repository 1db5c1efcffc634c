"""The tiled form against the dense one, in value and in both gradients, at awkward tiles and on label shards."""

from __future__ import annotations

import itertools

import pytest
import torch

from dexml import products
from dexml.losses import KEPT, REMOVED, Positives, TopK, label_mass, tiled
from tests.losses.memory import PeakMemory
from tests.losses.naive import LOSSES, dense_loss, random_batch, random_positives
from tests.losses.ranks import join, run_ranks, shard

K, ALPHA = 3, 2.0


def settings(name: str, k=K) -> dict:
    cdf = "laplace" if name == "topk-laplace" else "logistic"
    return {"loss": name.removesuffix("-laplace"), "topk": TopK(k, ALPHA, cdf)}


def dense_twin(name, query, label, positives, tau, weighted=False, k=K):
    query, label = query.clone().requires_grad_(), label.clone().requires_grad_()
    result = dense_loss(name, query @ label.T / tau, positives, weighted, k, ALPHA)
    return float(result.total.detach()), *torch.autograd.grad(result.mean, [query, label])


def run(name, query, label, positives, tau, k=K, **kw):
    got = tiled(query_GD=query, label_SD=label, positives=positives, tau=tau, **settings(name, k), **kw)
    return float(got.total), got.grad_query, got.grad_label


def on_shards(name, query, label, positives, tau, ends, k=K, **kw):
    """Results and collectives of one rank for each [start, stop) of `ends`."""

    def work(comm):
        start, stop = ends[comm.rank]
        local = shard(positives, start, stop)
        kw_all = {"comm": comm, "n_labels_total": len(label)} | settings(name, k) | kw
        return tiled(query_GD=query, label_SD=label[start:stop], positives=local, tau=tau, **kw_all)

    return run_ranks(len(ends), work)


def assert_same(got, want, atol=1e-11, rtol=1e-11):
    assert got[0] == pytest.approx(want[0], abs=atol, rel=rtol)
    for a, b in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=rtol, check_dtype=False)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tile", [(1, 1), (2, 7), (0, 70), (5, 73), (0, 8192)])
@pytest.mark.parametrize("name", LOSSES)
def test_tiled_equals_dense_at_any_tile_size(name, tile, weighted):
    query, label = random_batch(6, 70, 4, 0)
    positives = random_positives(6, 70, 0)
    weighted = weighted and name != "bce"
    got = run(name, query, label, positives, 0.7, tile_rows=tile[0], tile_cols=tile[1], weighted=weighted)
    assert_same(got, dense_twin(name, query, label, positives, 0.7, weighted))


@pytest.mark.parametrize("library", ["mkl", "onednn"])
@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_summed_in_float32_and_agrees_with_float64(name, library, monkeypatch):
    if library == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: library == "onednn")
    query, label = random_batch(40, 700, 16, 1)
    positives = random_positives(40, 700, 1, share=0.01)
    want = dense_twin(name, query, label, positives, 2.0)
    got = tiled(
        query_GD=query.float(), label_SD=label.float(), positives=positives, tau=2.0, tile_cols=64, **settings(name)
    )
    assert got.grad_query.dtype == got.grad_label.dtype == torch.float32
    assert float(got.total) == pytest.approx(want[0], rel=1e-5)
    torch.testing.assert_close(got.grad_query.double(), want[1], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(got.grad_label.double(), want[2], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_inputs_give_float32_gradients_near_the_exact_ones(name):
    query, label = random_batch(20, 300, 16, 2, torch.bfloat16)
    positives = random_positives(20, 300, 2, share=0.02, roles=(KEPT,))
    want = dense_twin(name, query.double(), label.double(), positives, 4.0)
    got = tiled(query_GD=query, label_SD=label, positives=positives, tau=4.0, tile_cols=128, **settings(name))
    assert got.grad_query.dtype == got.grad_label.dtype == torch.float32
    assert float(got.total) == pytest.approx(want[0], rel=0.02)
    for a, b in [(got.grad_query, want[1]), (got.grad_label, want[2])]:
        assert float((a - b).norm() / b.norm()) < 0.02


@pytest.mark.parametrize("name", LOSSES)
def test_inputs_are_left_as_they_were_and_float32_tiles_move_the_value_by_rounding_only(name):
    query, label = random_batch(8, 333, 8, 3, torch.float32)
    positives = random_positives(8, 333, 3)
    before = query.clone(), label.clone(), positives.cols.clone(), positives.weights.clone()
    values = [
        run(name, query, label, positives, 1.0, tile_rows=r, tile_cols=c)[0] for r, c in [(0, 512), (3, 50), (1, 7)]
    ]
    assert max(values) - min(values) <= 2e-5 * abs(values[0])
    for a, b in zip(before, (query, label, positives.cols, positives.weights), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("cuts", [[0, 41], [0, 20, 41], [0, 40, 41], [0, 17, 17, 41], [0, 0, 33, 41]])
@pytest.mark.parametrize("name", LOSSES)
def test_label_shards_equal_one_process_even_uneven_and_empty(name, cuts):
    query, label = random_batch(6, 41, 5, 4)
    positives = random_positives(6, 41, 4)
    ends = list(itertools.pairwise(cuts))

    results, _ = on_shards(name, query, label, positives, 0.5, ends, tile_cols=9)
    one = run(name, query, label, positives, 0.5)
    assert_same(join(results), one, atol=1e-10, rtol=1e-10)
    assert_same(one, dense_twin(name, query, label, positives, 0.5))


def test_more_shards_than_labels():
    query, label = random_batch(4, 2, 3, 5)
    positives = Positives.from_csr([0, 1, 1, 2, 4], [0, 1, 0, 1])
    ends = [(0, 1), (1, 2), (2, 2)]
    for name in LOSSES:
        results, _ = on_shards(name, query, label, positives, 1.0, ends, k=1)
        assert_same(join(results), dense_twin(name, query, label, positives, 1.0, k=1), atol=1e-10)


@pytest.mark.parametrize(
    "name, kinds",
    [
        ("softmax", ["gather"]),
        ("bce", ["sum"]),
        ("decoupled-softmax", ["gather", "sum"]),
        ("topk-laplace", ["gather", "sum"]),
    ],
)
def test_number_of_collectives(name, kinds):
    _, comm, _ = shard_run(name)
    assert [kind for kind, _ in comm.calls] == kinds


def test_soft_topk_gathers_once_then_sums_once_a_pass_and_once_for_the_weights():
    result, comm, n_rows = shard_run("topk")
    passes = int(result.stats["passes"])
    assert [kind for kind, _ in comm.calls] == ["gather"] + ["sum"] * (passes + 1)
    assert comm.calls[0][1] == n_rows * (2 * K + 2)
    assert all(size <= 3 * n_rows for _, size in comm.calls[1:])
    assert 2 <= passes <= 8


def shard_run(name):
    query, label = random_batch(6, 41, 5, 4)
    positives = random_positives(6, 41, 4)
    results, comms = on_shards(name, query, label, positives, 1.0, [(0, 30), (30, 41)])
    assert comms[0].calls == comms[1].calls
    return results[0], comms[0], 6


def test_rows_that_cannot_reach_k_are_counted_and_silent():
    query, label = random_batch(3, 4, 3, 6)
    positives = Positives.from_csr([0, 1, 3, 3], [0, 1, 2], role=[KEPT, KEPT, REMOVED])
    got = tiled("topk", query, label, positives, 1.0, topk=TopK(3, 2.0))
    assert got.stats["unsolvable_rows"] == 1
    assert float(got.grad_query[1].abs().max()) == float(got.grad_query[2].abs().max()) == 0
    assert_same((float(got.total), got.grad_query, got.grad_label), dense_twin("topk", query, label, positives, 1.0))


@pytest.mark.parametrize("name", ["topk", "topk-laplace"])
def test_k_may_differ_by_row(name):
    query, label = random_batch(6, 50, 4, 7)
    positives = random_positives(6, 50, 7)
    k = torch.tensor([0, 49, 2, 7, 1, 5])
    got = run(name, query, label, positives, 1.0, k=k, tile_cols=11)
    assert_same(got, dense_twin(name, query, label, positives, 1.0, k=k), atol=1e-9, rtol=1e-9)


def test_bisection_gives_the_same_soft_topk():
    query, label = random_batch(6, 50, 4, 8)
    positives = random_positives(6, 50, 8)
    halley = run("topk", query, label, positives, 1.0)
    got = tiled("topk", query, label, positives, 1.0, topk=TopK(K, ALPHA, solver="bisect", max_iter=80))
    assert_same((float(got.total), got.grad_query, got.grad_label), halley, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("gap", [2, 8, 12, 14, 30])
def test_negatives_keep_their_normaliser_under_a_dominant_positive(gap):
    # 131,072 zero scores and one positive at N + gap: subtracting it from the full sum loses N to rounding
    n_negatives = 131_072
    log_z = torch.tensor(float(n_negatives)).log().item()
    label = torch.cat([torch.full((1, 1), log_z + gap), torch.zeros(n_negatives, 1)])
    got = tiled("decoupled-softmax", torch.ones(1, 1), label, Positives.from_csr([0, 1], [0]), 1.0)
    want = torch.nn.functional.softplus(torch.tensor(-float(gap), dtype=torch.float64))
    assert float(got.total) == pytest.approx(float(want), rel=1e-5)
    assert bool(torch.isfinite(got.grad_query).all()) and bool(torch.isfinite(got.grad_label).all())
    weight = torch.sigmoid(torch.tensor(-float(gap), dtype=torch.float64)) / n_negatives
    torch.testing.assert_close(got.grad_label[1:].double(), weight.expand(n_negatives, 1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_peak_memory_is_a_few_tiles_beside_inputs_and_gradients(name):
    n_rows, n_cols, width, tile_cols = 128, 60_000, 16, 2048
    query, label = random_batch(n_rows, n_cols, width, 9, torch.float32)
    positives = Positives.from_csr(torch.arange(n_rows + 1), torch.arange(n_rows) * 7)
    with PeakMemory() as memory:
        run(name, query / 4, label, positives, 1.0, tile_rows=n_rows, tile_cols=tile_cols, k=5)
    tile, outputs = 4 * n_rows * tile_cols, 4 * (n_rows + n_cols) * width
    assert outputs < memory.peak < outputs + 4 * tile
    assert 4 * tile < 4 * n_rows * n_cols / 7


def test_a_loss_of_your_own_is_a_function_of_the_job():
    from dexml.losses.fits import fit_softmax

    query, label = random_batch(3, 9, 4, 10)
    positives = random_positives(3, 9, 10)
    by_name = tiled("softmax", query, label, positives, 1.0)
    by_function = tiled(fit_softmax, query, label, positives, 1.0)
    assert torch.equal(by_name.grad_label, by_function.grad_label)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mass_of_a_label_is_the_sum_of_its_absolute_gradients(name):
    query, label = random_batch(6, 70, 4, 0)
    positives = random_positives(6, 70, 0)
    scores = (query @ label.T / 0.7).requires_grad_()
    (gradient,) = torch.autograd.grad(dense_loss(name, scores, positives, False, K, ALPHA).mean, [scores])
    keys = settings(name)
    mass = label_mass(keys.pop("loss"), query, label, positives, 0.7, tile_rows=4, tile_cols=9, **keys)
    torch.testing.assert_close(mass, gradient.abs().sum(0), atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_stored_in_bfloat16_are_compared_in_the_type_of_the_queries(name):
    query, label = random_batch(6, 70, 4, 0)
    query, stored = query.float(), label.bfloat16()
    positives = random_positives(6, 70, 0)
    got = run(name, query, stored, positives, 0.7, tile_cols=9)
    assert got[2].dtype == torch.float32
    assert_same(got, run(name, query, stored.float(), positives, 0.7, tile_cols=9), 1e-6, 1e-6)
