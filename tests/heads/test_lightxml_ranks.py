"""LightXML: one process equals two and three for every switch, tables replicated or sharded, dropout on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.heads.lightxml_step import CASES, SEARCHED, SWITCHES
from tests.helpers.datasets import make_toy
from tests.helpers.models import make_model
from tests.helpers.processes import run_ranks

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Arrays]:
    root = tmp_path_factory.mktemp("ranks")
    make_toy(root / "Datasets" / "Toy", n_labels=29)
    make_model(root / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    arrays = {}
    for n in (1, 2, 3):
        out = root / f"{n}.npz"
        run_ranks(n, "tests.heads.lightxml_step", str(root), str(out), timeout=600)
        with np.load(out) as saved:
            arrays[n] = {name: saved[name] for name in saved.files}
    return arrays


def of(found: dict[int, Arrays], n: int, case: str) -> Arrays:
    return {name.partition("/")[2]: value for name, value in found[n].items() if name.startswith(f"{case}/")}


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_steps_and_search_of_one_process(found: dict[int, Arrays], case: str, n: int) -> None:
    one, many = of(found, 1, case), of(found, n, case)
    assert len(one) > 60 and one.keys() == many.keys() and float(one["loss"]) > 0
    for name, value in one.items():
        np.testing.assert_allclose(many[name], value, err_msg=name, **precision(value))


def precision(value: np.ndarray) -> dict[str, float]:
    """Scores are float32."""
    return {"rtol": 1e-6, "atol": 1e-7} if value.dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("case", SWITCHES)
def test_a_sharded_table_trains_as_a_replicated_one(found: dict[int, Arrays], case: str) -> None:
    whole, shards = of(found, 1, case), of(found, 3, f"{case}-sharded")
    for name, value in whole.items():
        kind, _, parameter = name.partition(" ")
        other = shards[name if name in shards else f"{kind} {parameter.removeprefix('net.')}"]
        np.testing.assert_allclose(other, value, err_msg=name, **precision(value))


def test_switches_differ(found: dict[int, Arrays]) -> None:
    known = {case: of(found, 1, case) for case in SWITCHES}
    # gradients stopped before the encoder leave the loss as it is, and gates begin at 1
    same_loss = {"grouped", "label_only", "group_only", "gate"}
    assert len({float(known[case]["loss"]) for case in same_loss}) == 1
    assert len({float(one["loss"]) for one in known.values()}) == len(SWITCHES) - len(same_loss) + 1
    name = next(name for name in known["grouped"] if name.startswith("gradient encoder") and "layer.0" in name)
    assert len({known[case][name].tobytes() for case in same_loss - {"gate"}}) == 3


def test_every_list_is_whole_and_scored_as_asked(found: dict[int, Arrays]) -> None:
    for case in CASES:
        one = of(found, 3, case)
        assert one["ids"].shape == (SEARCHED, 7) and (one["ids"][:, 0] >= 0).all()
        filled = one["ids"] >= 0
        np.testing.assert_allclose(one["score"][filled], one["scores"][filled], rtol=1e-5)
        assert not one["score"][~filled].any()
