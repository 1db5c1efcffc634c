"""Whole runs: a bank that was killed goes on bit for bit, grouped batches too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dexml.training.trainer import Trainer
from tests.helpers.models import toy_config
from tests.training.runs import assert_same_result, config, train

SHORT: dict[str, Any] = {"num_epochs": 2, "eval_interval": 1, "save_interval": 2}
BANK = {"label_side": "bank", "bank_budget": 0.9, "bsz": 16, "bank_grad": "delayed", "batch_group": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toy_config(folder)
    return folder


def test_a_killed_run_with_a_bank_ends_as_if_nothing_had_happened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(root, expname="whole", **SHORT, **BANK)
    cut = config(root, expname="cut", **SHORT, **BANK)
    tell = Trainer._tell

    def kill(self: Trainer, *args: Any) -> None:
        tell(self, *args)
        if self.state.step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_tell", kill)
        with pytest.raises(KeyboardInterrupt):
            Trainer(cut).fit()
    Trainer(cut).fit()
    assert "resuming" in (cut.out_dir / "log.txt").read_text()
    assert_same_result(whole.out_dir, cut.out_dir)
    log = (whole.out_dir / "log.txt").read_text()
    assert "label side bank" in log and "grouping 160 points by 4" in log


def test_the_log_tells_what_the_bank_did(root: Path) -> None:
    cfg, _ = train(root, expname="told", save=False, log_interval=2, **SHORT, **BANK)
    log = (cfg.out_dir / "log.txt").read_text()
    for fact in ("age ", "oldest ", "gradient now ", "drift ", "corrected "):
        assert f", {fact}" in log
