"""The bench of quality: rows, tables, and a run of some seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.quality import add_row, main, table
from tests.helpers.models import write_config

ROW = {"data": "Toy", "name": "a", "split": "tst", "minutes": 1.0, "P@1": 50.0, "parameters": 1_500_000, "peak_mb": 900}


def test_a_row_replaces_the_one_of_the_same_data_name_and_split(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for row in (ROW, ROW | {"name": "b"}, ROW | {"split": "val"}, ROW | {"P@1": 60.0}):
        add_row(path, row)
    rows = json.loads(path.read_text())
    assert [(row["name"], row["split"], row["P@1"]) for row in rows] == [
        ("a", "tst", 60.0), ("b", "tst", 50.0), ("a", "val", 50.0)
    ]  # fmt: skip


def test_tables_have_a_line_a_row() -> None:
    lines = table([ROW, ROW | {"data": "Other"}]).splitlines()
    assert (
        lines[0].startswith("| Toy, tst | P@1 |") and lines[2] == "| a | 50.00 |  |  |  |  | 1.00 | 1.50 M |  | 900 |"
    )
    assert lines[4].startswith("| Other, tst |")


ATTENTION = {"net": "attentionxml", "cluster_size": 4, "beam_width": 3, "lstm_width": 16, "linear_size": "8"}


@pytest.mark.parametrize(
    ("keys", "parameters"), [({}, 0), ({"net": "dist-clf-net", "head_epochs": 2}, 30 * 32), (ATTENTION, None)]
)
def test_a_run_ends_with_its_time_and_its_rate_at_zero(
    tmp_path: Path, keys: dict[str, object], parameters: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = write_config(tmp_path, **keys), tmp_path / "rows.json"
    main([str(config), "--minutes", "0.08", "--name", "short", "--json", str(out), "--tf_dropout", "0"])
    (row,) = json.loads(out.read_text())
    assert row["steps"] > 5 and row["settings"]["tf_dropout"] == 0
    assert parameters is None or row["parameters"] == parameters
    assert "| short |" in capsys.readouterr().out


def test_every_way_of_predicting_is_a_row(tmp_path: Path) -> None:
    config, out = write_config(tmp_path, predict_mode="mix", knn_k=5, knn_weight=0.5), tmp_path / "rows.json"
    main([str(config), "--minutes", "0.03", "--name", "short", "--json", str(out)])
    assert [row["name"] for row in json.loads(out.read_text())] == ["short", "short, knn", "short, mix"]


def test_every_search_of_a_tree_is_a_row(tmp_path: Path) -> None:
    keys = {"net": "plt", "doc_layers": 1, "plt_arity": 3, "plt_max_leaves": 4, "plt_beam": 1}
    config, out = write_config(tmp_path, **keys), tmp_path / "rows.json"
    main([str(config), "--minutes", "0.03", "--name", "short", "--beams", "4", "0", "--json", str(out)])
    rows = json.loads(out.read_text())
    assert [row["name"] for row in rows] == ["short", "short, beam 4", "short, exact"]
    assert [row["settings"]["plt_beam"] for row in rows] == [1, 4, 0]
    assert rows[0]["P@5"] < rows[2]["P@5"]
    assert rows[0]["steps"] == rows[2]["steps"]


def test_a_cut_trains_on_some_of_the_points(tmp_path: Path) -> None:
    config, out = write_config(tmp_path, num_val_points=5), tmp_path / "rows.json"
    main([str(config), "--minutes", "0.02", "--cut", "20", "--json", str(out)])
    (row,) = json.loads(out.read_text())
    assert row["data"].endswith("-20")
    (texts,) = tmp_path.rglob(f"{row['data']}/raw/trn_X.txt")
    assert len(texts.read_text().splitlines()) == 20
