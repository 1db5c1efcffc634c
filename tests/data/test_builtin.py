import pytest

from dexml.cli import main
from dexml.data import Dataset, builtin

SMALL = ["--points", "5", "--test-points", "2", "--labels", "3"]


def test_a_built_in_set_goes_where_asked_or_below_the_root(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, place in [(["Mine"], "Mine"), (["--root", "data"], "data/Synthetic"), ([], "Datasets/Synthetic")]:
        assert main(["prepare", "synthetic", *words, *SMALL]) == 0
        assert capsys.readouterr().out == f"{place}\n"
        assert len(Dataset.load(tmp_path / place).trn) == 5


@pytest.mark.parametrize("name", builtin.BUILTIN)
def test_help_makes_nothing(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", name, "--help"])
    assert stopped.value.code == 0
    assert f"dexml prepare {name}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "icd10cm", str(tmp_path / "X"), "--points", "3"])
    assert "unrecognized arguments: --points 3" in capsys.readouterr().err
