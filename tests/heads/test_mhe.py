"""Multi-head heads in runs: what they learn, resume, export, hand on and refuse; sizes; what they can learn at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import load_npz
from torch import Tensor, nn

from dexml.config import Config, ConfigError
from dexml.data.dataset import Dataset
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.heads import mhe_table
from dexml.heads.candidates import Candidates, bce_sum, dots
from dexml.heads.label_codes import LabelCodes
from dexml.heads.mhe import MultiHead
from dexml.heads.structure import Belonging
from dexml.hub.bundle import Bundle
from dexml.session import Session
from dexml.training.evaluate import Evaluation, evaluate
from dexml.training.target import Target
from tests.heads.mhe_examples import make, ready, tensor
from tests.helpers.datasets import make_toy, write_dataset
from tests.helpers.models import make_model, toy_config
from tests.training.runs import assert_goes_on_bit_for_bit, config, train

NET = {"net": "mhe", "doc_layers": 2, "doc_dropout": 0.1, "clf_lr": 0.03}
KINDS: dict[str, dict[str, Any]] = {
    "product": {"mhe_kind": "product", "mhe_order": "random"},
    "product-ranks": {"mhe_kind": "product", "mhe_rank": 4, "mhe_open": 3},
    "cascade": {"mhe_kind": "cascade", "mhe_open": 3, "mhe_dim": 16},
    "sampling": {"mhe_kind": "sampling", "mhe_scope": "batch", "mhe_table": "sharded"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mhe")


@pytest.fixture(scope="module", params=KINDS)
def run(root: Path, request: pytest.FixtureRequest) -> Config:
    keys = {"num_epochs": 12, "eval_interval": 6, "save_interval": 7, "save_keep": 9}
    return train(root, expname=request.param, **keys, **NET, **KINDS[request.param])[0]


# --- runs


def test_a_toy_set_is_learnt(run: Config) -> None:
    metrics = json.loads((run.out_dir / "metrics.json").read_text())
    assert metrics["P@1"] > 30  # one prediction in 14 is right by chance


def test_a_killed_run_goes_on_bit_for_bit(run: Config, tmp_path: Path) -> None:
    assert_goes_on_bit_for_bit(run, tmp_path)


def test_the_bundle_predicts_as_the_run_did(run: Config) -> None:
    bundle = Bundle.load(run.out_dir / "best")
    ids, scores = bundle.search(list(Dataset.load(run.data_dir).tst.texts), run.eval_topk)
    kept = load_npz(run.out_dir / "tst_score_mat.npz")
    assert np.array_equal(ids[ids >= 0], kept.indices)
    np.testing.assert_allclose(scores[ids >= 0], kept.data, rtol=1e-5)
    found = evaluate(Evaluation(Target.of([str(run.out_dir)]), "tst"))
    assert found is not None
    assert found["labels"]["P@5"] == json.loads((run.out_dir / "metrics.json").read_text())["P@5"]


@pytest.mark.parametrize("key", [("--doc_layers", "1"), ("--mhe_dim", "9"), ("--mhe_table", "sharded")])
def test_a_run_of_another_shape_is_not_evaluated(root: Path, key: tuple[str, str]) -> None:
    cfg, _ = train(root, expname="shape", num_epochs=1, **NET, **KINDS["cascade"])
    with pytest.raises(ConfigError, match=f"trained with other settings.*{key[0][2:]}"):
        Target.of([str(cfg.out_dir)], key)
    assert Target.of([str(cfg.out_dir)], ["--mhe_exact", "True", "--mhe_open", "5"]).cfg.mhe_open == 5


def test_other_codes_are_refused(run: Config) -> None:
    session = Session(run, World())
    assert isinstance(session.head, MultiHead)
    session.head.learn_from(session.training_split)
    state = session.head.net.state_dict()
    session.head.codes = LabelCodes(session.head.codes.lengths, np.roll(session.head.codes.label_of, 1))
    session.head.net.codes = Belonging(session.head.codes)
    with pytest.raises(DataError, match="grouped or numbered in another way"):
        session.head.net.load_state_dict(state)


def test_codes_are_kept_beside_the_data_and_made_of_what_is_trained_on(root: Path) -> None:
    def codes(**keys: Any) -> LabelCodes:
        session = Session(Config(**toy_config(root, **NET, **{**KINDS["product"], **keys})), World())
        assert isinstance(session.head, MultiHead)
        session.head.learn_from(session.training_split)
        return session.head.codes

    folder = config(root).data_dir / "structures"
    assert codes(seed=5).hash == codes(seed=5).hash != codes(seed=6).hash
    assert len(list(folder.glob("codes-*"))) >= 2
    held_out = codes(mhe_order="frequency")
    counts = Session(Config(**toy_config(root)), World()).training_split.relevance.getnnz(axis=0)
    assert (np.diff(counts[held_out.label_of]) <= 0).all()
    texts = list(Dataset.load(config(root).data_dir).label_texts)
    assert [texts[i] for i in codes(mhe_order="alphabetical").label_of] == sorted(texts)


def test_the_cascade_finds_the_shortlists_of_a_dual_encoder(root: Path) -> None:
    cfg, _ = train(root, expname="lists", num_epochs=8, **NET, **KINDS["cascade"])
    evaluate(Evaluation(Target.of([str(cfg.out_dir)], ["--eval_topk", "6"]), "trn"))
    lists = cfg.out_dir / "trn_score_mat.npz"
    assert (load_npz(lists).getnnz(axis=1) == 6).all()
    hard = {"net": "dist-de-hnm", "neg_type": "shorty", "num_neg_samples": 3, "trn_shorty": str(lists)}
    assert train(root, expname="hard", num_epochs=2, hard_neg_start=9, save=False, **hard)[1]["P@1"] > 0


# --- what is refused, and what is handled


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mhe_lengths": "5x5"}, "mhe_lengths 5x5: no room for 30 labels"),
        ({"mhe_lengths": "3x3x4"}, "mhe_kind cascade has two heads"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(root: Path, keys: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(root, expname="refused", **NET, **KINDS["cascade"], **keys)
    assert not (root / "Results" / "DEXML" / "Toy" / "refused").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mhe_lengths": "5"}, "mhe_lengths"),
        ({"mhe_lengths": "5x6", "mhe_groups": 5}, "mhe_lengths and mhe_groups say the lengths of the heads twice"),
        ({"mhe_kind": "product", "mhe_open": 5}, "mhe_open is for mhe_kind cascade, or product with mhe_rank above 1"),
        ({"mhe_kind": "cascade", "mhe_scope": "own"}, "mhe_scope is for mhe_kind sampling, mhe_kind is cascade"),
        ({"mhe_loss": "soft-margin"}, "mhe_loss soft-margin is for mhe_kind product"),
        (
            {"mhe_kind": "product", "mhe_loss": "bce", "mhe_renormalise": True},
            "mhe_renormalise is for mhe_loss softmax",
        ),
        ({"net": "lightxml", "mhe_groups": 3}, "mhe_groups is for net mhe, net is lightxml"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(root: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(root, **{"net": "mhe", **keys})


@pytest.mark.parametrize("kind", KINDS)
def test_one_label(tmp_path: Path, kind: str) -> None:
    write_dataset(tmp_path / "Datasets" / "Toy", (["a b", "c d"], [[1], [1]]), (["e"], [[1]]), ["red"])
    make_model(tmp_path / "model")
    keys = {"eval_topk": 1, "track_metric": "P@1", "num_val_points": 0, "num_epochs": 1, "mhe_loss": "bce"}
    assert train(tmp_path, **keys, **NET, **KINDS[kind])[1]["P@1"] == 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_prime_number_of_labels(tmp_path: Path, kind: str) -> None:
    make_toy(tmp_path / "Datasets" / "Toy", n_labels=29)
    make_model(tmp_path / "model")
    cfg, _ = train(tmp_path, eval_topk=29, num_epochs=1, **NET, **KINDS[kind])
    found = load_npz(cfg.out_dir / "tst_score_mat.npz")
    if kind != "cascade":  # which opens three groups
        assert (found.getnnz(axis=1) == 29).all()
    assert found.shape == (50, 29)


# --- sizes, and gradients of shards


@pytest.mark.parametrize(
    ("kind", "n_labels", "lengths", "dim", "count"),
    [
        ("cascade", 670_091, (8377, 80), 400, 301_748_857),
        ("product", 670_091, (8377, 80), 0, 32_483_337),
        ("cascade", 3956, (172, 23), 300, 2_999_752),
        ("product", 3956, (172, 23), 0, 748_995),
    ],
)
def test_numbers_of_parameters(
    monkeypatch: pytest.MonkeyPatch, kind: str, n_labels: int, lengths: tuple[int, int], dim: int, count: int
) -> None:
    def rows(span: slice, width: int, seed: int) -> Tensor:
        return torch.empty(span.stop - span.start, width, device="meta")

    monkeypatch.setattr(mhe_table, "random_rows", rows)
    monkeypatch.setattr(MultiHead, "_seeded", lambda self, make: make())
    with torch.device("meta"):
        head = make(kind, n_labels, lengths, 3840, mhe_dim=dim)
    assert sum(p.numel() for p in head.net.parameters()) == count


def test_shards_add_up_to_the_whole() -> None:
    """Two texts on two ranks, label r on rank r; gradients of ranks are added, never averaged."""
    theta = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    table = tensor([0.5], [-1.0]).requires_grad_()
    z = tensor([1.0], [2.0]) @ theta
    found = Candidates(torch.tensor([[0, 1], [-1, 1]]), torch.tensor([[True, False], [False, True]]))
    shards = [found.within(rank, rank + 1) for rank in (0, 1)]
    parts = [bce_sum(dots(z, table[r : r + 1], own.place), own.targets) for r, own in enumerate(shards)]
    assert [float(part.detach()) for part in parts] == pytest.approx([0.474077, 2.440190], abs=1e-6)
    loss = torch.stack(parts).sum() / found.real.sum()
    assert float(loss.detach()) == pytest.approx(0.971422, abs=1e-6)
    grad_table, grad_z, grad_theta = torch.autograd.grad(loss, [table, z, theta])
    assert grad_table.flatten().tolist() == pytest.approx([-0.125847, -0.497551], abs=1e-6)
    assert grad_z.flatten().tolist() == pytest.approx([-0.152571, 0.293599], abs=1e-6)
    assert float(grad_theta) == pytest.approx(0.434627, abs=1e-6)


# --- what can be learnt, on vectors in place of texts

Points = tuple[Tensor, list[list[int]]]


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=shape))


def prototypes(rng: np.random.Generator, width: int, clustered: bool = False) -> Tensor:
    """[58, width]; clustered ones stand about ten centres, six in a row."""
    if clustered:
        centres = 3 * nn.functional.normalize(normal(rng, 10, width), dim=1)
        return (centres.repeat_interleave(6, 0) + 0.8 * normal(rng, 60, width))[:58]
    return 3 * nn.functional.normalize(normal(rng, 58, width), dim=1)


def points(rng: np.random.Generator, where: Tensor, n: int, labels: int = 1) -> Points:
    own = [sorted(rng.choice(58, labels, replace=False).tolist()) for _ in range(n)]
    x = torch.stack([where[some].sum(0) for some in own]) + 0.3 * normal(rng, n, where.shape[1])
    return x, own


def learn(head: Any, encoder: nn.Module, trn: Points, steps: int, rng: np.random.Generator) -> None:
    parameters = [*head.net.parameters(), *encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-2)
    for step in range(steps):
        some = rng.integers(0, len(trn[1]), 128)
        batch = ready(head, [trn[1][i] for i in some], epoch=step)
        optimizer.zero_grad()
        head.loss(encoder(trn[0][some]), batch).backward()
        optimizer.step()


def precision(head: Any, encoder: nn.Module, tst: Points, k: int) -> float:
    with torch.no_grad():
        ids = head.best(encoder(tst[0]), k)[0].tolist()
    return sum(len(set(found) & set(own)) for found, own in zip(ids, tst[1], strict=True)) / (k * len(ids))


def heads(loss: str, width: int) -> dict[str, Callable[[], Any]]:
    multi = loss == "bce"
    return {
        "ova": lambda: make("sampling", 58, (10, 6), width, loss, mhe_sampled=10),  # all groups: no sampling
        "sampling": lambda: make("sampling", 58, (10, 6), width, loss, mhe_sampled=3),
        "cascade": lambda: make("cascade", 58, (10, 6), width, "bce", mhe_open=5 if multi else 3, mhe_dim=64),
        "product": lambda: make("product", 58, (10, 6), width, loss),
    }


def single(seed: int, kind: str, clustered: bool = False, deep: bool = False) -> float:
    """Test accuracy with one label a text."""
    rng = np.random.default_rng(seed)
    where = prototypes(rng, 32, clustered)
    trn, tst = points(rng, where, 2048), points(rng, where, 512)
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(32, 256), nn.ReLU()).double() if deep else nn.Identity()
    head = heads("softmax", 256 if deep else 32)[kind]()
    learn(head, encoder, trn, 400, rng)
    return precision(head, encoder, tst, 1)


def several(seed: int, kind: str) -> float:
    """P@3 with three labels a text."""
    rng = np.random.default_rng(seed)
    where = prototypes(rng, 64)
    trn, tst = points(rng, where, 4096, 3), points(rng, where, 512, 3)
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU()).double()
    head = heads("bce", 256)[kind]()
    learn(head, encoder, trn, 800, rng)
    return precision(head, encoder, tst, 3)


def check_single(seed: int) -> None:
    ova, sampling, cascade, product = (single(seed, kind) for kind in ("ova", "sampling", "cascade", "product"))
    assert ova > 0.99 and sampling > 0.97
    assert cascade >= 0.9
    assert product < ova
    assert single(seed, "product", clustered=True) > product


def test_one_label_with_linear_features() -> None:
    check_single(0)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_one_label_with_linear_features_and_other_seeds(seed: int) -> None:
    check_single(seed)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["sampling", "cascade", "product"])
def test_one_label_with_an_encoder(kind: str) -> None:
    assert single(0, kind, deep=True) >= 0.97


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [0, 1])
def test_several_labels_are_ghosts_to_a_product(seed: int) -> None:
    assert several(seed, "ova") >= 0.97
    assert several(seed, "cascade") >= 0.95
    assert several(seed, "product") < 0.8
