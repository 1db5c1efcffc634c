"""Label trees: one process equals two and three, tables replicated or sharded, dropout on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.heads.plt_step import CASES
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Arrays]:
    root = tmp_path_factory.mktemp("ranks")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    found = {}
    for n in (1, 2, 3):
        out = root / f"{n}.npz"
        run_ranks(n, "tests.heads.plt_step", str(root), str(out))
        with np.load(out) as saved:
            found[n] = {name: saved[name] for name in saved.files}
    return found


def of(steps: dict[int, Arrays], n: int, case: str) -> Arrays:
    return {name.partition("/")[2]: value for name, value in steps[n].items() if name.startswith(f"{case}/")}


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_step_and_the_search_of_one_process(steps: dict[int, Arrays], case: str, n: int) -> None:
    one, many = of(steps, 1, case), of(steps, n, case)
    assert len(one) > 30 and one.keys() == many.keys()
    for name, value in one.items():
        np.testing.assert_allclose(many[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_sharded_table_trains_as_a_replicated_one(steps: dict[int, Arrays]) -> None:
    whole, shards = of(steps, 1, "per_doc"), of(steps, 3, "sharded")
    np.testing.assert_allclose(shards["loss"], whole["loss"], rtol=1e-12)
    for name in ("weight", "bias"):
        np.testing.assert_allclose(shards[f"own {name}"], whole[f"net.{name}"], atol=1e-12)
    same = [name for name in whole if name.startswith("encoder.")]
    for name in same:
        np.testing.assert_allclose(shards[name], whole[name], atol=1e-9, err_msg=name)


@pytest.mark.parametrize("case", ["chunks", "lazy"])
def test_the_same_gradient_in_other_ways(steps: dict[int, Arrays], case: str) -> None:
    one, other = of(steps, 1, "per_doc"), of(steps, 2, case)
    for name in one.keys() - {"ids", "scores", "after the update"}:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_every_text_is_predicted_once(steps: dict[int, Arrays]) -> None:
    for case in CASES:
        found = of(steps, 3, case)
        assert found["ids"].shape == (50, 7) and (found["ids"][:, 0] >= 0).all()
        assert (np.diff(found["scores"], axis=1) <= 0).all()
