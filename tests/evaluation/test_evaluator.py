"""No point is lost or counted twice, with one, two and three real processes, and fewer points than processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.evaluation.ranks import POINTS
from tests.helpers.datasets import make_toy, write_lines
from tests.helpers.models import toy_config
from tests.helpers.processes import run_ranks

WAYS = ("labels", "knn", "mix")
FILTERED = (1, 2, 5)
TRAINED = 11  # training points of each data set, two of them held out
Found = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Found]:
    root = tmp_path_factory.mktemp("ranks")
    toy_config(root)
    for n in POINTS:
        data = make_toy(root / "Datasets" / f"Toy-{n}", n_trn=TRAINED, n_tst=n, n_labels=29, seed=n)
        barred = [f"{point} {label}" for point in (0, n - 1) for label in FILTERED]
        write_lines(data / "filter_labels_test.txt", barred)
    arrays: dict[int, Found] = {}
    for processes in (1, 2, 3):
        out = root / f"{processes}.npz"
        run_ranks(processes, "tests.evaluation.ranks", str(root), str(out))
        with np.load(out) as saved:
            arrays[processes] = {name: saved[name] for name in saved.files}
    return arrays


@pytest.mark.parametrize("processes", [2, 3])
def test_lists_and_metrics_are_those_of_one_process(found: dict[int, Found], processes: int) -> None:
    one, many = found[1], found[processes]
    assert len(one) == len(POINTS) * (3 * 3 * 3 + 1) + 3 and one.keys() == many.keys()
    for name, array in one.items():
        assert many[name].shape == array.shape, name
        if name.endswith("scores"):
            np.testing.assert_allclose(many[name], array, rtol=1e-5, atol=1e-7, err_msg=name)
        else:
            assert np.array_equal(many[name], array), name


@pytest.mark.parametrize("n", POINTS)
@pytest.mark.parametrize("way", WAYS)
def test_every_point_has_one_list(found: dict[int, Found], n: int, way: str) -> None:
    for processes, arrays in found.items():
        for split, points in (("tst", n), ("trn", TRAINED), ("val", 2)):
            ids = arrays[f"{n}/{split}/{way}/ids"]
            assert ids.shape == (points, 10), (processes, split)
            assert (ids[:, 0] >= 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_filtered_labels_get_neither_place_nor_vote(found: dict[int, Found], way: str) -> None:
    for n in POINTS:
        assert not np.isin(found[3][f"{n}/tst/{way}/ids"][[0, n - 1]], FILTERED).any()


def test_a_training_point_does_not_vote_for_itself(found: dict[int, Found]) -> None:
    """The vote of a point holds no label that this point alone has."""
    for n in POINTS:
        truth, ids = found[2][f"{n}/trn/truth"], found[2][f"{n}/trn/knn/ids"]
        alone = (truth > 0) & (truth.sum(axis=0) == 1)
        assert alone.any()
        for point, label in zip(*alone.nonzero(), strict=True):
            assert label not in ids[point]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_another_kind_of_index_is_searched_with_the_same_queries(found: dict[int, Found], processes: int) -> None:
    arrays = found[processes]
    assert np.array_equal(arrays["index/flat"], arrays["index/exact"])
    assert np.array_equal(arrays["index/hnsw"], arrays["index/exact"])  # 29 labels: the graph finds them all


def test_the_command_in_three_processes_writes_what_it_writes_in_one(tmp_path: Path) -> None:
    keys = toy_config(tmp_path, num_threads=1, num_epochs=1, results_root=str(tmp_path / "Results"))
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys))
    run_ranks(1, "dexml.cli", "train", str(config))
    bundle, written = str(tmp_path / "Results" / "DEXML" / "Toy" / "run" / "best"), {}
    for processes in (1, 3):
        out = tmp_path / f"{processes}"
        words = ["--predict_mode", "mix", "--out", str(out), "--predictions", str(tmp_path / f"{processes}.jsonl")]
        printed = run_ranks(processes, "dexml.cli", "eval", "tst", bundle, *words)
        assert ["run (tst) mix" in text for text in printed] == [True, *[False] * (processes - 1)]
        lines = [json.loads(line) for line in (tmp_path / f"{processes}.jsonl").open()]
        lists = [(line["id"], [label["id"] for label in line["labels"]], line["truth"]) for line in lines]
        written[processes] = lists, (out / "tst-mix_metrics.tsv").read_text()
    assert written[3] == written[1]
    assert [row for row, _, _ in written[3][0]] == list(range(50))
