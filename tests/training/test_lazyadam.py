"""Lazy Adam: the numbers worked out by hand, torch's SparseAdam beside it, rows over several processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dexml.distributed import GradientReduction, RowTable, World, launch, leave
from dexml.training.lazyadam import LazyAdam
from tests.helpers.processes import run_ranks

STEPS = [{0: 1.0}, {1: 2.0}, {0: -1.0, 1: 2.0}]


def sparse(rows: dict[int, float], n: int) -> torch.Tensor:
    values = torch.tensor(list(rows.values()), dtype=torch.float64)[:, None]
    return torch.sparse_coo_tensor(torch.tensor([list(rows)]), values, (n, 1))


def test_rows_by_hand() -> None:
    table = RowTable(torch.zeros(2, 1, dtype=torch.float64))
    optimizer = LazyAdam([table], lr=1e-3)
    wanted = [(-0.001, 0), (-0.001, -0.000744137), (-0.000954817, -0.001602599)]
    for rows, expected in zip(STEPS, wanted, strict=True):
        table.grad = sparse(rows, 2)
        optimizer.step()
        assert table.detach()[:, 0].tolist() == pytest.approx(expected, abs=1e-8)


def test_dense_adam_moves_the_absent_row() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
    optimizer = LazyAdam([weight], lr=1e-3)
    found = []
    for rows in STEPS:
        weight.grad = sparse(rows, 2).to_dense()
        optimizer.step()
        found.append(weight.detach()[:, 0].tolist())
    assert found[1][0] == pytest.approx(-0.001670058, abs=1e-8)
    assert found[2] == pytest.approx([-0.001584191, -0.001602599], abs=1e-8)


def test_it_equals_torch_on_random_rows_named_several_times() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = RowTable(torch.randn(20, 3, generator=generator, dtype=torch.float64))
    theirs = torch.nn.Parameter(ours.detach().clone())
    pairs = [(ours, LazyAdam([ours], lr=0.01)), (theirs, torch.optim.SparseAdam([theirs], lr=0.01))]
    for _ in range(10):
        rows = torch.randint(0, 20, (1, 12), generator=generator)
        values = torch.randn(12, 3, generator=generator, dtype=torch.float64)
        for parameter, optimizer in pairs:
            parameter.grad = torch.sparse_coo_tensor(rows, values, (20, 3))
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-12)


def test_weight_decay_is_decoupled_and_of_the_rows_present() -> None:
    table = RowTable(torch.ones(3, 1, dtype=torch.float64))
    table.grad = sparse({1: 0.0}, 3)
    LazyAdam([table], lr=0.1, weight_decay=0.5).step()
    assert table.detach()[:, 0].tolist() == pytest.approx([1, 0.95, 1])


def test_its_state_survives_saving() -> None:
    def run(stop: int) -> torch.Tensor:
        table = RowTable(torch.zeros(2, 1, dtype=torch.float64))
        optimizer = LazyAdam([table], lr=1e-3)
        for i, rows in enumerate(STEPS):
            if i == stop:
                state = optimizer.state_dict()
                optimizer = LazyAdam([table], lr=1e-3)
                optimizer.load_state_dict(state)
            table.grad = sparse(rows, 2)
            optimizer.step()
        return table.detach()

    assert torch.equal(run(2), run(9))


def test_two_processes_add_rows_and_update_their_union(tmp_path: Path) -> None:
    """Each rank leaves its part of the mean: half of its own gradient."""
    run_ranks(2, "tests.training.test_lazyadam", str(tmp_path))
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as saved:
            assert saved["rows"].tolist() == [2, 5, 7]
            assert saved["grad"][:, 0].tolist() == [0.5, 3, -0.5]
            expected = np.zeros(9)
            expected[[2, 5, 7]] = [-0.001, -0.001, 0.001]
            np.testing.assert_allclose(saved["table"][:, 0], expected, rtol=0, atol=1e-8)
            assert not saved["table"][[0, 1, 3, 4, 6, 8]].any()
            assert saved["dense"].tolist() == [3]


def main() -> None:
    world = World.of(launch())
    table, dense = RowTable(torch.zeros(9, 1, dtype=torch.float64)), torch.nn.Parameter(torch.zeros(1))
    table.grad = sparse([{2: 0.5, 5: 1.0}, {5: 2.0, 7: -0.5}][world.rank], 9)
    dense.grad = torch.tensor([1.0 + world.rank])
    reduction = GradientReduction(world, [dense, table])
    reduction.finish()
    assert table.grad is not None
    LazyAdam([table], lr=1e-3).step()
    grad = table.grad
    np.savez(
        Path(sys.argv[1]) / f"{world.rank}.npz",
        rows=grad.indices()[0].numpy(),
        grad=grad.values().numpy(),
        table=table.detach().numpy(),
        dense=dense.grad.numpy(),
    )
    leave()


if __name__ == "__main__":
    main()
