"""Averaged weights: the worked example, bit-identical swaps, runs that are resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import load_npz
from torch import Tensor, nn

from dexml.config import Config
from dexml.hub.bundle import Bundle
from dexml.training.averaging import Average, average_path
from dexml.training.checkpoint import checkpoints
from dexml.training.step import drops_out
from dexml.training.trainer import Trainer
from tests.helpers.processes import run_ranks
from tests.training.runs import assert_same_result, batches, config, evaluations, started, train

PER_EPOCH = 4


def scalar(start: int = 1, every: int = 2) -> tuple[Average, nn.Parameter, nn.Parameter]:
    """An average over one shared weight and one of this rank alone."""
    model, own = nn.Linear(1, 1, bias=False), nn.Parameter(torch.zeros(1))
    nn.init.zeros_(model.weight)
    cfg = Config(dataset="Toy", swa_start=start, swa_every=every)
    return Average(cfg, SimpleNamespace(model=model, own={"table": own}), PER_EPOCH), model.weight, own  # type: ignore[arg-type]


def take(average: Average, weights: tuple[Tensor, ...], steps: range) -> None:
    """Each step adds 1 to every weight."""
    for step in steps:
        average.before(step)
        for weight in weights:
            weight.data += 1
        average.after(step)


def value(average: Average, weight: Tensor) -> float:
    with average.installed():
        return float(weight.detach())


def test_the_worked_example() -> None:
    average, weight, own = scalar()
    take(average, (weight, own), range(4))
    assert average.n == 0 and value(average, weight) == 4
    take(average, (weight, own), range(4, 8))
    assert average.n == 3
    assert value(average, weight) == value(average, own) == pytest.approx(16 / 3)
    take(average, (weight, own), range(8, 12))
    assert average.n == 5 and value(average, weight) == pytest.approx(7.2)
    assert float(weight.detach()) == float(own.detach()) == 12


def test_the_numbers_of_the_published_average() -> None:
    """Weights 1 as the epoch begins, 3 and 5 at the next marks: 2, then 3."""
    average, weight, _ = scalar(start=0, every=2)
    weight.data.fill_(1)
    average.before(0)
    for step, reached, expected in ((2, 3, 2.0), (PER_EPOCH, 5, 3.0)):
        weight.data.fill_(reached)
        average.after(step)
        assert value(average, weight) == pytest.approx(expected)
        assert float(weight.detach()) == reached


def test_the_weights_come_back_bit_for_bit_also_after_an_error() -> None:
    average, weight, _ = scalar(start=0)
    take(average, (weight,), range(3))
    weight.data.fill_(0.1)
    with pytest.raises(RuntimeError, match="in the middle"), average.installed():
        assert float(weight.detach()) != float(torch.tensor(0.1))
        raise RuntimeError("in the middle")
    assert float(weight.detach()) == float(torch.tensor(0.1))
    average.install()
    assert float(weight.detach()) != float(torch.tensor(0.1))


def test_without_it_nothing_happens(tmp_path: Path) -> None:
    average, weight, _ = scalar(every=0)
    take(average, (weight,), range(9))
    average.install()
    average.save(tmp_path, 0)
    average.load(tmp_path, 0)
    assert average.n == 0 and float(weight.detach()) == 9 and not list(tmp_path.iterdir())


def test_it_is_kept_with_its_count(tmp_path: Path) -> None:
    average, weight, own = scalar()
    take(average, (weight, own), range(7))
    average.save(tmp_path, 0)
    other, other_weight, other_own = scalar()
    for one in (other_weight, other_own):
        one.data.fill_(7)
    other.load(tmp_path, 0)
    assert other.n == average.n
    take(average, (weight, own), range(7, 12))
    take(other, (other_weight, other_own), range(7, 12))
    assert value(other, other_weight) == value(average, weight) == value(other, other_own)


def test_dropout_ends_after_a_step_of_each_epoch() -> None:
    assert [drops_out(3, step, 8) for step in range(8)] == [True] * 4 + [False] * 4
    assert [drops_out(0.5, step, 8) for step in range(8)] == [True] * 4 + [False] * 4
    assert all(drops_out(None, step, 8) for step in range(8))
    assert not any(drops_out(0, step, 8) for step in range(8))


# --- runs

KEYS = {"num_epochs": 4, "eval_interval": 1, "swa_start": 1, "swa_every": 2, "num_val_points": 40, "save_keep": 9}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("averaging")


@pytest.fixture(scope="module")
def run(root: Path) -> Config:
    return train(root, expname="swa", save_interval=3, lr_schedule="constant", **KEYS)[0]


def test_the_model_that_is_saved_is_the_average(run: Config) -> None:
    best = json.loads((checkpoints(run.out_dir / "checkpoints")[-1] / "state.json").read_text())["best"]
    folder = run.out_dir / "checkpoints" / f"step-{int(best['step']):08d}"
    saved, raw = load_file(run.out_dir / "best" / "model.safetensors"), load_file(folder / "model.safetensors")
    mean = load_file(average_path(folder, 0))
    name = "embeddings.word_embeddings.weight"
    of_run = next(key for key in raw if key.endswith(name))
    assert torch.equal(saved[name], mean[next(key for key in mean if key.endswith(name))])
    assert not torch.equal(saved[name], raw[of_run])


def test_evaluation_during_training_is_that_of_the_average(root: Path, run: Config) -> None:
    train(root, expname="raw", save_interval=3, lr_schedule="constant", **{**KEYS, "swa_every": 0})
    averaged, raw = evaluations(run.out_dir), evaluations(run.out_dir.with_name("raw"))
    assert averaged[0] == raw[0]  # the first epoch has no average yet
    assert [entry["loss"] for entry in averaged] == [
        entry["loss"] for entry in raw
    ]  # training goes on from the weights
    assert averaged[-1] != raw[-1]


def test_a_killed_run_goes_on_bit_for_bit(run: Config, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(run.out_dir, whole)
    kept = checkpoints(run.out_dir / "checkpoints")
    middle = next(path for path in kept if int(path.name[5:]) % 5 and average_path(path, 0).exists())
    for path in kept[kept.index(middle) + 1 :]:
        shutil.rmtree(path)
    (run.out_dir / "metrics.json").unlink()
    Trainer(run).fit()
    assert_same_result(run.out_dir, whole)


def test_the_dropout_switch_reaches_encoder_and_text_vector(root: Path) -> None:
    keys = {"net": "lightxml", "lxml_mode": "plain", "doc_layers": 1, "bsz": 20, "dropout_off_after_step": 3}
    trainer = started(config(root, expname="switch", tf_dropout=0.1, **KEYS | keys))
    seen = []
    for epoch in range(2):
        for ready in batches(trainer, epoch):
            trainer._step(ready)
            texts = trainer.session.head.prepare(ready[0].batch)
            vectors = trainer.session.head.vectors(texts.queries.embed(), texts)  # type: ignore[attr-defined]
            trainer.session.encoder.eval()
            without = trainer.session.head.vectors(texts.queries.embed(), texts)  # type: ignore[attr-defined]
            seen.append(not torch.equal(vectors[0], without[0]))
    per_epoch = trainer.per_epoch
    assert per_epoch == 8
    assert seen == ([True] * 4 + [False] * 4) * 2


def test_two_ranks_average_as_one_and_one_process_predicts_with_their_model(tmp_path: Path) -> None:
    told = [run_ranks(n, "tests.training.test_averaging", str(tmp_path / str(n)))[0].split()[-3:] for n in (1, 2)]
    assert told[0][0] == told[1][0]
    for one, two in zip(told[0][1:], told[1][1:], strict=True):
        assert float(one) == pytest.approx(float(two), rel=1e-5)
    cfg = config(tmp_path, expname="run2")
    texts = (cfg.data_dir / "raw" / "tst_X.txt").read_text().splitlines()
    ids, scores = Bundle.load(cfg.out_dir / "best").search(texts, cfg.eval_topk)
    stored = load_npz(cfg.out_dir / "tst_score_mat.npz")
    assert np.array_equal(ids[ids >= 0], stored.indices)
    np.testing.assert_allclose(scores[ids >= 0], stored.data, rtol=1e-4)


def main() -> None:
    """A rank of the test above: the number averaged, the norm of an average that all hold and of a sharded one."""
    import sys

    from dexml.distributed import leave

    n = int(Path(sys.argv[1]).name)
    keys = {"net": "lightxml", "lxml_table": "sharded", "doc_layers": 1, "lxml_cluster_size": 8, "lxml_dim": 8}
    keys |= {"bsz": 32 // n, "num_epochs": 2, "save_interval": 3, "doc_dropout": 0.1}
    trainer = Trainer(config(Path(sys.argv[1]).parent, expname=f"run{n}", **KEYS | keys))
    trainer.fit()
    world, head = trainer.world, trainer.session.head
    own = world.sum_(torch.tensor(sum(float(p.detach().double().square().sum()) for p in head.own.values())))
    shared = sum(float(p.detach().double().square().sum()) for p in head.shared)
    print(trainer.average.n, shared, float(own))
    leave()


if __name__ == "__main__":
    main()
