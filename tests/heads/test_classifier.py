"""The linear classifier: gradient, starting weights, what a run learns, resumes, exports and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import load_npz
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch
from dexml.data.dataset import Dataset
from dexml.distributed import World
from dexml.evaluation.retrieval import Retriever
from dexml.heads.classifier import Classifier
from dexml.heads.rows import random_rows
from dexml.hub.bundle import Bundle
from dexml.losses import LossSum, Positives, bce, decoupled_softmax, soft_topk, softmax
from dexml.session import Session
from dexml.training.checkpoint import checkpoints
from dexml.training.evaluate import Evaluation, evaluate
from dexml.training.target import Target
from dexml.training.trainer import Trainer
from tests.helpers.datasets import padded, write_dataset, write_lines
from tests.helpers.models import make_model, toy_config
from tests.training.runs import assert_same_result, batches, config, started, train

BATCH = Batch(np.arange(3, 14), epoch=1, step=7)
NET = {"net": "dist-clf-net", "clf_lr": 0.03}
NAIVE: dict[str, Callable[..., LossSum]] = {
    "softmax": softmax, "bce": bce, "decoupled-softmax": decoupled_softmax, "topk": soft_topk
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classifier")


def ready(root: Path, **keys: Any) -> tuple[Session, Classifier]:
    """A session and its head, in float64 before the first step."""
    session = Session(Config(**toy_config(root, **{"tf_dropout": 0.0, **NET, **keys})), World())
    session.encoder.double().train()
    assert isinstance(session.head, Classifier)
    session.head.learn_from(session.dataset.trn)
    session.head.fit_structure(session.embedder())
    return session, session.head


# --- the step


@pytest.mark.parametrize("loss", NAIVE)
def test_the_gradient_is_that_of_the_naive_formula(root: Path, loss: str) -> None:
    session, head = ready(root, loss_criterion=loss, topk_K="num_pos" if loss == "topk" else 5, clf_init="random")
    stats = head.accumulate(head.prepare(BATCH), scale=2.0)
    weight_LD = head.rows.weight_SD.detach().clone().requires_grad_()
    ids, lengths = queries(session)
    query_GD = session.encoder(ids, lengths, torch.zeros(len(ids), dtype=torch.int32))
    relevance = session.dataset.trn.relevance[BATCH.points]
    topk = {"k": torch.from_numpy(np.diff(relevance.indptr).astype(np.int64))} if loss == "topk" else {}
    positives = Positives.from_csr(relevance.indptr, relevance.indices)
    expected = NAIVE[loss](query_GD @ weight_LD.T / session.cfg.tau, positives, **topk).mean
    assert stats.loss == pytest.approx(float(expected.detach()), rel=1e-9)
    parameters = [head.rows.weight_SD, *head.shared]
    wanted = torch.autograd.grad(2 * expected, [weight_LD, *head.shared], allow_unused=True)
    for p, grad in zip(parameters, wanted, strict=True):
        if grad is not None:
            assert p.grad is not None
            torch.testing.assert_close(p.grad, grad, rtol=1e-7, atol=1e-9)


def queries(session: Session) -> tuple[Tensor, Tensor]:
    ids = padded(session.tokens("trn"), BATCH.points)
    lengths = session.tokens("trn").gather(BATCH.points)[1]
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(lengths.astype(np.int64))


def test_gradients_of_parts_of_a_batch_add_up(root: Path) -> None:
    _, head = ready(root)
    for _ in range(2):
        head.accumulate(head.prepare(BATCH), 0.5)
    twice = head.rows.weight_SD.grad
    _, head = ready(root)
    head.accumulate(head.prepare(BATCH))
    assert twice is not None and head.rows.weight_SD.grad is not None
    torch.testing.assert_close(twice, head.rows.weight_SD.grad)


def test_a_label_without_positives_is_pushed_away(root: Path) -> None:
    session, head = ready(root, clf_init="zeros")
    seen = np.unique(session.dataset.trn.relevance[BATCH.points].indices)
    head.accumulate(head.prepare(BATCH))
    assert head.rows.weight_SD.grad is not None
    unseen = np.setdiff1d(np.arange(head.n_labels), seen)
    assert len(unseen)
    ids, lengths = queries(session)
    query_GD = session.encoder(ids, lengths, torch.zeros(len(ids), dtype=torch.int32))
    assert (head.rows.weight_SD.grad[unseen] @ query_GD.mean(0) > 0).all()


# --- starting weights


def test_weights_start_where_the_config_says(root: Path) -> None:
    session, head = ready(root)
    texts = Retriever.of_texts(session.embedder(), session.tokens("labels"))
    assert torch.equal(head.rows.weight_SD.detach().float(), texts.item_SD)
    _, head = ready(root, clf_init="zeros")
    assert not head.rows.weight_SD.any()
    _, head = ready(root, clf_init="random")
    assert float(head.rows.weight_SD.detach().norm(dim=1).mean()) == pytest.approx(1, abs=0.1)


def test_random_rows_are_the_same_in_every_shard() -> None:
    whole = random_rows(slice(0, 9000), 3, seed=1)
    for rows in (slice(0, 1), slice(4095, 8193), slice(9000, 9000)):
        assert torch.equal(random_rows(rows, 3, seed=1), whole[rows])
    assert not torch.equal(random_rows(slice(0, 9), 3, seed=2), whole[:9])


# --- runs


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def run(root: Path, request: pytest.FixtureRequest) -> Config:
    keys = {"expname": f"clf-{request.param}", "clf_dtype": request.param, "save_interval": 7, "save_keep": 9}
    cfg, _ = train(root, num_epochs=12, eval_interval=6, **keys, **NET)
    return cfg


def test_a_toy_set_is_learnt(run: Config) -> None:
    metrics = json.loads((run.out_dir / "metrics.json").read_text())
    assert metrics["P@1"] > 60  # one prediction in 14 is right by chance
    log = (run.out_dir / "log.txt").read_text()
    assert "effective learning rate of the label weights 0.03" in log


def test_weights_and_moments_take_half_the_memory_in_bf16(run: Config) -> None:
    shard = load_file(checkpoints(run.out_dir / "checkpoints")[-1] / "shard-0.safetensors")
    found = {str(x.dtype) for name, x in shard.items() if not name.endswith(".step")}
    assert found == {"torch.bfloat16" if run.clf_dtype == "bf16" else "torch.float32"}


def test_names_that_say_nothing_do_not_matter(root: Path) -> None:
    _, metrics = train(root, expname="zeros", num_epochs=12, eval_interval=12, save=False, clf_init="zeros", **NET)
    assert metrics["P@1"] > 60  # one prediction in 14 is right by chance


def test_a_killed_run_goes_on_bit_for_bit(run: Config, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(run.out_dir, whole)
    kept = checkpoints(run.out_dir / "checkpoints")
    for path in kept[1:]:
        shutil.rmtree(path)
    (run.out_dir / "metrics.json").unlink()
    Trainer(run).fit()
    assert f"(step {int(kept[0].name[5:])} of" in (run.out_dir / "log.txt").read_text()
    assert_same_result(run.out_dir, whole)


def test_the_bundle_predicts_as_the_run_did(run: Config) -> None:
    bundle = Bundle.load(run.out_dir / "best")
    data = Dataset.load(run.data_dir)
    ids, _ = bundle.search(list(data.tst.texts), run.eval_topk)
    scores = load_npz(run.out_dir / "tst_score_mat.npz")
    assert np.array_equal(ids.ravel(), scores.indices)
    weights = load_file(run.out_dir / "best" / "label_embeddings.safetensors")["labels"]
    names = bundle.encoder.encode(list(data.label_texts))
    assert np.abs(weights.numpy() - names).max() > 0.1  # no longer where they began
    found = evaluate(Evaluation(Target.of([str(run.out_dir)]), "tst"))
    assert found is not None
    trained = json.loads((run.out_dir / "metrics.json").read_text())
    assert found["labels"]["P@1"] == trained["P@1"]
    assert found["labels"]["PSP@5"] == trained["PSP@5"]


def test_the_best_weights_come_back_not_the_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = started(config(root, expname="best", num_epochs=2, **NET))
    trainer.checkpoints.save(trainer.state)
    before = trainer.session.head.own["weight"].detach().clone()
    trainer._step(batches(trainer)[0])
    assert not torch.equal(trainer.session.head.own["weight"], before)
    trainer.state.best = {"value": 1.0, "step": 0}
    trainer.checkpoints.load_best(trainer.state)
    assert torch.equal(trainer.session.head.own["weight"], before)


# --- what is refused


def test_data_with_other_labels_are_refused(run: Config, tmp_path: Path) -> None:
    other = tmp_path / "Other"
    shutil.copytree(run.data_dir, other)
    lines = (other / "raw" / "Y.txt").read_text().splitlines()
    write_lines(other / "raw" / "Y.txt", [*lines[:3], "another name", *lines[4:]])
    asked = Evaluation(Target.of([str(run.out_dir / "best")]).on(other, "tst"), "tst")
    with pytest.raises(ConfigError, match="classifier of 30 labels and predicts no others, but label 3 is another"):
        evaluate(asked)


def test_one_label_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "Datasets" / "Toy", (["a b", "c d"], [[1], [1]]), (["e"], [[1]]), ["red"])
    make_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="tells labels apart: there is only one"):
        train(tmp_path, eval_topk=1, track_metric="P@1", num_val_points=0, **NET)
    assert not (tmp_path / "Results").exists()


@pytest.mark.parametrize("key", ["clf_init", "clf_joint", "clf_lr", "clf_dtype"])
def test_keys_of_another_net_are_refused(root: Path, key: str) -> None:
    values = {"clf_init": "zeros", "clf_joint": True, "clf_lr": 0.1, "clf_dtype": "bf16"}
    with pytest.raises(ConfigError, match=f"{key} is for net.*, net is dist-de-all"):
        config(root, **{key: values[key]})


def test_a_pool_of_labels_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="dist-clf-net compares with all labels"):
        config(root, neg_type="in-batch", **NET)
