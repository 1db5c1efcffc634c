"""Bundles in an environment that has no dexml: plain sentence-transformers and plain transformers."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

from dexml import Encoder
from dexml.cli import main
from dexml.hub.bundle import read_labels
from tests.hub.test_card import CODE
from tests.training.runs import train

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "mean, normalised": {"tf_pooler": "mean"},
    "mean, projected": {"tf_pooler": "mean", "bottleneck_dim": 6},
    "cls, projected, not normalised": {"tf_pooler": "cls", "bottleneck_dim": 6, "norm_embs": False, "tau": 1.0},
    "last, not normalised": {"tf_pooler": "last", "norm_embs": False, "tau": 1.0},
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has sentence-transformers and no dexml."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
    for packages in (["torch"], ["sentence-transformers"]):
        subprocess.run([*pip, *packages], check=True, timeout=1200)
    return folder / "bin" / "python"


ALL = """
import sys
import numpy

for path in sys.argv[1:]:
    names = {}
    exec(open(path).read(), names)
    numpy.save(path + ".npy", names["vectors"])
"""


def runs(python: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [str(python), "-c", code, *words]
    return subprocess.run(command, env=env, cwd=python.parent, capture_output=True, text=True, timeout=900)


@pytest.mark.heavy
def test_a_bundle_gives_the_same_vectors_in_plain_libraries(elsewhere: Path, tmp_path: Path) -> None:
    assert "No module named 'dexml'" in runs(elsewhere, "import dexml").stderr
    expected: dict[str, np.ndarray] = {}
    for number, keys in enumerate(KINDS.values()):
        root = tmp_path / str(number)
        root.mkdir()
        cfg, _ = train(root, num_epochs=1, num_val_points=0, **keys)
        assert main(["export", str(cfg.out_dir), str(root / "out")]) == 0
        text = next(text for text in read_labels(root / "out") if text)
        snippets = [code for language, code in CODE.findall((root / "out" / "README.md").read_text())][2:]
        assert ["sentence_transformers" in code for code in snippets] == [True, False]
        for i, code in enumerate(snippets):
            (root / f"{i}.py").write_text(code)
            expected[str(root / f"{i}.py")] = Encoder.load(root / "out").encode([text])
    done = runs(elsewhere, ALL, *expected)
    assert done.returncode == 0, done.stderr
    for path, vectors in expected.items():
        np.testing.assert_allclose(np.load(f"{path}.npy"), vectors, atol=1e-5, err_msg=Path(path).read_text())
