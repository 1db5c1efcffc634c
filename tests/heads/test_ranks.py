"""One process equals two and three, with real processes, float64, dropout on, uneven shards and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.datasets import make_toy, write_lines
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks
from tests.helpers.step import CASES

FILTERS = [f"{point} {label}" for point in (0, 1, 49) for label in range(0, 29, 2)]


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("ranks")
    data = make_toy(root / "Datasets" / "Toy", n_labels=29)
    write_lines(data / "filter_labels_test.txt", FILTERS)
    make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    found = {}
    for n in (1, 2, 3):
        out: Path = root / f"{n}.npz"
        run_ranks(n, "tests.helpers.step", str(root), str(out))
        with np.load(out) as saved:
            found[n] = {name: saved[name] for name in saved.files}
    return found


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_one_process(gradients: dict[int, dict[str, np.ndarray]], case: str, n: int) -> None:
    one, many = gradients[1], gradients[n]
    names = [name for name in one if name.startswith(f"{case}/")]
    assert len(names) > 30
    assert one[f"{case}/loss"][1] > 0
    for name in names:
        np.testing.assert_allclose(many[name], one[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_cases_differ(gradients: dict[int, dict[str, np.ndarray]]) -> None:
    losses = {round(float(gradients[1][f"{case}/loss"][1]), 9) for case in CASES}
    assert len(losses) == len(CASES)


@pytest.mark.parametrize("n", [2, 3])
def test_the_evaluation_of_one_process(gradients: dict[int, dict[str, np.ndarray]], n: int) -> None:
    one, many = gradients[1], gradients[n]
    assert one["ids"].shape == (50, 10)
    assert np.array_equal(many["ids"], one["ids"])
    np.testing.assert_allclose(many["scores"], one["scores"], atol=1e-6)
    assert np.array_equal(many["metrics"], one["metrics"])


def test_filtered_cells_are_never_predicted_and_rows_stay_full(gradients: dict[int, dict[str, np.ndarray]]) -> None:
    for point in (0, 1, 49):
        assert (gradients[2]["ids"][point] % 2 == 1).all()
