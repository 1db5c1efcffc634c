"""Shortlists of runs: mined block by block, by one process as by two, at once or while training goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import load_npz

from dexml.config import Config, ConfigError
from dexml.distributed import World
from dexml.labels.listfile import LISTS, NEXT, map_lists
from dexml.labels.policy import make_label_side
from dexml.labels.positives import known_cells
from dexml.session import Session
from dexml.training import mining
from dexml.training.checkpoint import checkpoints
from dexml.training.mining import Miner
from dexml.training.trainer import Trainer
from tests.helpers.models import toy_config
from tests.helpers.processes import run_ranks
from tests.training.runs import assert_same_result, config, killed_at

HARD = {"net": "dist-de-hnm", "neg_type": "shorty", "hard_neg_start": 0, "hard_neg_topk": 5, "num_neg_samples": 2}
BACKGROUND: dict[str, Any] = {
    **{**HARD, "hard_neg_background": True, "num_epochs": 4, "eval_interval": 1, "bsz": 64},  # 3 steps an epoch
    **{"save_interval": 1, "save_keep": 20},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mining")
    toy_config(folder)
    return folder


def found(session: Session) -> np.ndarray:
    """The lists of all points, searched at once."""
    trn = session.dataset.trn
    known = known_cells(trn.relevance, trn.filters)
    return session.retrieve().search(session.tokens("trn"), np.arange(len(trn)), 5, known).ids


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "BLOCK", 48)
        yield


Lists = dict[int, np.ndarray]


@pytest.fixture(scope="module")
def whole(root: Path, small_blocks: None) -> tuple[Config, Lists, Lists]:
    """An undisturbed run; by epoch, the lists as the model was then, and the lists then in use."""
    then, used = {}, {}
    begin = Miner.begin

    def look(self: Miner, epoch: int) -> None:
        then[epoch], used[epoch] = found(self.session), np.array(self.side.lists)  # type: ignore[arg-type]
        begin(self, epoch)

    cfg = config(root, expname="whole", **BACKGROUND)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Miner, "begin", look)
        trainer = Trainer(cfg)
        trainer._build()
        trainer._restore()
        then[0], used[0] = found(trainer.session), np.array(trainer.head.side.lists)  # type: ignore[attr-defined]
        trainer._train()
        trainer._finish()
    return cfg, then, used


def test_the_first_lists_are_the_nearest_labels_of_each_point_without_its_own(
    root: Path, whole: tuple[Config, Lists, Lists]
) -> None:
    _, then, used = whole
    assert np.array_equal(used[0], then[0])
    relevance = load_npz(root / "Datasets" / "Toy" / "Y.trn.npz").toarray() > 0
    assert used[0].min() >= 0 and used[0].shape == (len(relevance), 5)
    assert not np.take_along_axis(relevance, used[0].astype(np.int64), 1).any()


def test_lists_mined_in_the_background_are_those_of_an_epoch_before(whole: tuple[Config, Lists, Lists]) -> None:
    cfg, then, used = whole
    assert not np.array_equal(then[1], then[2])
    assert np.array_equal(used[1], then[0]), "nothing has been asked for since"
    for epoch in (2, 3):
        assert np.array_equal(used[epoch], then[epoch - 1])
    assert np.array_equal(map_lists(cfg.out_dir / LISTS), used[4])
    log = (cfg.out_dir / "log.txt").read_text()
    assert log.count("in the background after epoch") == 2, "lists that no epoch would use are not mined"


def test_a_run_killed_while_lists_are_mined_ends_as_if_nothing_had_happened(
    root: Path, whole: tuple[Config, Lists, Lists], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = config(root, expname="cut", **BACKGROUND)
    for last in (6, 7):  # goes on from step 5, in an epoch, and from step 6, between two
        killed_at(cut, last, monkeypatch)
    kept = checkpoints(cut.out_dir / "checkpoints")
    assert [(path / NEXT).exists() for path in kept] == [False, False, False, True, True, False]
    Trainer(cut).fit()
    assert_same_result(whole[0].out_dir, cut.out_dir)
    for path in checkpoints(whole[0].out_dir / "checkpoints"):
        for name in (LISTS, NEXT):
            assert (path / name).exists() == (cut.out_dir / "checkpoints" / path.name / name).exists()
    assert not [path.name for path in cut.out_dir.rglob(".*")]


def test_a_search_that_fails_stops_the_run_with_its_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Miner._write

    def fail(self: Miner, name: str, *args: Any) -> None:
        if name == NEXT:
            raise OSError("no space left")
        write(self, name, *args)

    monkeypatch.setattr(Miner, "_write", fail)
    with pytest.raises(OSError, match="no space left"):
        Trainer(config(root, expname="full", **{**BACKGROUND, "save_interval": 0, "save": False})).fit()


def test_the_background_is_for_shortlists_of_one_process(root: Path) -> None:
    with pytest.raises(ConfigError, match="hard_neg_background is for label_side shortlist, label_side is all"):
        config(root, hard_neg_background=True)
    cfg = config(root, **BACKGROUND)
    with pytest.raises(ConfigError, match="hard_neg_background is for one process, there are 2"):
        make_label_side(cfg, Session(cfg, World()).training_split, World(0, 2))


def test_two_processes_mine_the_lists_of_one(root: Path) -> None:
    for n in (1, 2):
        run_ranks(n, "tests.training.mining", str(root), str(root / f"mined-{n}"))
    one, two = (root / f"mined-{n}" for n in (1, 2))
    assert (one / LISTS).read_bytes() == (two / LISTS).read_bytes()
    assert [path.name for path in two.iterdir()] == [LISTS]
