"""bench/index.py on a toy data set whose embeddings lie in the cache already."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.common import BenchError
from bench.index import KINDS, main, render
from dexml.data.textfile import Lines
from tests.helpers.datasets import make_toy
from tests.index.clouds import clouds


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    data = make_toy(tmp_path / "Toy")
    (data / "raw" / "Y.txt").write_text("".join(f"label {i}\n" for i in range(400)))
    n_queries = len(Lines(data / "raw" / "tst_X.txt"))
    for name, rows in (("labels", clouds(400)), (f"queries-{n_queries}", clouds(n_queries, seed=5))):
        np.save(tmp_path / f"Toy-here-{name}.npy", rows)
    words = ["--data", str(data), "--cache", str(tmp_path), "--encoder", "here", "--threads", "1"]
    return [*words, "--json", str(tmp_path / "out.json")]


def test_every_kind_is_measured_beside_flat(words: list[str], tmp_path: Path) -> None:
    assert main(words, "") == 0
    kinds = json.loads((tmp_path / "out.json").read_text())["kinds"]
    assert list(kinds) == list(KINDS)
    assert kinds["flat"]["recall"] == {"1": 1.0, "10": 1.0, "100": 1.0} and kinds["flat"]["many_gain"] == 1.0
    assert kinds["ivf"]["reached"] and kinds["hnsw"]["reached"] and not kinds["pq"]["reached"]
    assert kinds["ivf"]["recall"]["100"] > 0.95
    assert kinds["flat"]["bytes"] > kinds["fp16"]["bytes"] > kinds["sq8"]["bytes"]
    rows = {
        kind: row | {"recall": {int(k): share for k, share in row["recall"].items()}} for kind, row in kinds.items()
    }
    assert len(render(rows).splitlines()) == 1 + len(KINDS)


def test_embeddings_of_other_texts_are_refused(words: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "Toy-here-labels.npy", clouds(399))
    with pytest.raises(BenchError, match="holds 399 rows, not 400: delete it"):
        main(words, "")
