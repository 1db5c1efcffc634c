"""Every kind of multi-head head: one process equals two and three, tables on every rank equal shared-out ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.heads.mhe_step import CASES, TABLES
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks

Found = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    root = tmp_path_factory.mktemp("ranks")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model", hidden_dropout_prob=0.1)
    found = {}
    for n in (1, 2, 3):
        out: Path = root / f"{n}.npz"
        run_ranks(n, "tests.heads.mhe_step", str(root), str(out))
        with np.load(out) as saved:
            found[n] = {name: saved[name] for name in saved.files}
    return found


def of(found: Found, case: str) -> Found:
    return {name.removeprefix(f"{case}:"): x for name, x in found.items() if name.startswith(f"{case}:")}


def assert_equal(a: Found, b: Found) -> None:
    assert a.keys() == b.keys() and len(a) > 30
    assert a["loss"][1] > 0
    for name, value in a.items():
        if name == "scores":
            np.testing.assert_allclose(value, b[name], rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_allclose(value, b[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_step_and_the_search_of_one_process(steps: dict[int, Found], case: str, n: int) -> None:
    assert_equal(of(steps[n], case), of(steps[1], case))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("table", TABLES)
def test_tables_shared_out_are_those_on_every_rank(steps: dict[int, Found], table: str, n: int) -> None:
    assert_equal(of(steps[n], f"{table}/own"), of(steps[n], f"{table}/shared"))


def test_cases_differ(steps: dict[int, Found]) -> None:
    losses = {case: round(float(of(steps[1], case)["loss"][1]), 9) for case in CASES if not case.endswith("own")}
    assert len(set(losses.values())) == len(losses), losses
