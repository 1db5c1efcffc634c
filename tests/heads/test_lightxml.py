"""LightXML: the worked examples, edge cases, and runs of seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, load_npz
from torch import Tensor, nn

from dexml.config import Config, ConfigError, load_config
from dexml.data.batching import Batch
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.heads.candidates import bce_sum, dots
from dexml.heads.features import Positives, PreparedFeatures
from dexml.heads.lightxml import GroupedLightXML
from dexml.heads.lightxml_net import Document, LayerGate, TokenBlend
from dexml.heads.lightxml_plain import PlainLightXML
from dexml.heads.rows import uniform_rows
from dexml.heads.treebuild import from_levels
from dexml.hub.bundle import Bundle
from dexml.session import Session
from dexml.training.checkpoint import checkpoints
from dexml.training.evaluate import Evaluation, evaluate
from dexml.training.target import Target
from dexml.training.trainer import Trainer
from tests.helpers.datasets import write_dataset
from tests.helpers.models import make_model, toy_config
from tests.training.runs import assert_same_result, config, started, train

TREE = from_levels([np.array([0, 0, 0, 1, 1, 2, 2])])
ELEMENTS = (0.2, 0.0, -2.0, 1.0, -0.5, 9.0, 9.0)


class Stub(nn.Module):
    """Stands where the encoder does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.one = width, nn.Parameter(torch.zeros(1, dtype=torch.float64))


def toy_head(**keys: Any) -> GroupedLightXML:
    """z = theta * x of width 1, clusters {0,1,2}, {3,4}, {5,6}, generator (2,-1,0), ranker 1."""
    cfg = Config(
        dataset="Toy", net="lightxml", doc_layers=1, doc_dropout=0.0, lxml_topb=2, lxml_dim=1, eval_topk=7, **keys
    )
    head = GroupedLightXML(cfg, Stub(1), 7, None, World())  # type: ignore[arg-type]
    head._make(TREE)
    head.net.double()
    with torch.no_grad():
        head.generator.weight.copy_(torch.tensor([[2.0], [-1], [0]]))
        head.ranker.weight.fill_(1)
        head.generator.bias.zero_(), head.ranker.bias.zero_()
        head._rows[head.groups.place_of, 0] = torch.tensor(ELEMENTS).double()
    return head


def ready(labels: list[list[int]]) -> PreparedFeatures:
    indptr = np.cumsum([0, *map(len, labels)])
    positives = Positives(indptr, np.array([one for row in labels for one in row], np.int64))
    points = np.arange(len(labels))
    return PreparedFeatures(Batch(points, 0, 0), None, points, positives, np.zeros(len(labels), np.int32))  # type: ignore[arg-type]


# --- the worked examples


@pytest.mark.parametrize(
    ("reach", "d_theta"), [("both", 0.713654), ("label_only", -0.117230), ("group_only", 0.830884)]
)
def test_which_loss_reaches_what(reach: str, d_theta: float) -> None:
    head = toy_head(lxml_encoder_grad=reach)
    theta = torch.ones(1, dtype=torch.float64, requires_grad=True)
    loss = head.loss(theta[None] * 1.0, ready([[3]]))
    assert float(loss.detach()) == pytest.approx(0.481111 + 1.377779, abs=1e-6)
    loss.backward()
    assert theta.grad is not None
    assert float(theta.grad) == pytest.approx(d_theta, abs=1e-6)
    assert head.generator.weight.grad is not None and head.ranker.weight.grad is not None
    assert head.generator.weight.grad.flatten().tolist() == pytest.approx([0.293599, -0.243686, 0.166667], abs=1e-6)
    assert float(head.ranker.weight.grad) == pytest.approx(-0.117230, abs=1e-6)
    elements = head.table("labels").grad
    assert elements is not None
    expected = [0.109967, 0.1, 0.023841, -0.053788, 0.075508, 0, 0]
    assert elements.flatten()[head.groups.place_of].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_text_without_labels_has_negatives_only() -> None:
    head = toy_head()
    loss = head.loss(torch.ones(1, 1, dtype=torch.float64), ready([[]]))
    chosen = torch.tensor([0.2, 0, -2, 9, 9]).double()  # of the clusters with logits 2 and 0
    generator = torch.tensor([2.0, -1, 0]).double()
    expected = torch.nn.functional.softplus(chosen).mean() + torch.nn.functional.softplus(generator).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-9)


def test_the_mean_is_over_all_candidates_of_the_batch() -> None:
    head = toy_head(lxml_group_weight=0.0)
    one, other, together = (
        float(head.loss(torch.ones(len(labels), 1, dtype=torch.float64), ready(labels)).detach())
        for labels in ([[3]], [[0, 3, 5]], [[3], [0, 3, 5]])
    )
    assert together == pytest.approx((5 * one + 6 * other) / 11)  # 5 and 6 candidates


def test_ranks_add_parts_of_one_sum() -> None:
    theta = torch.ones(1, dtype=torch.float64, requires_grad=True)
    table = torch.tensor([[0.5], [-1.0]], dtype=torch.float64, requires_grad=True)
    query = theta * torch.tensor([[1.0], [2.0]]).double()
    place, target = torch.tensor([[0, 1], [1, -1]]), torch.tensor([[True, False], [True, False]])
    parts = []
    for rank in range(2):
        here = torch.where(place == rank, 0, -1)
        parts.append(bce_sum(dots(query, table[rank : rank + 1], here), target[place == rank]))
    assert [float(part) for part in parts] == pytest.approx([0.474077, 2.440190], abs=1e-6)
    loss = (parts[0] + parts[1]) / 3
    assert float(loss) == pytest.approx(0.971422, abs=1e-6)
    d_query, d_table, d_theta = torch.autograd.grad(loss, [query, table, theta])
    assert d_table.flatten().tolist() == pytest.approx([-0.125847, -0.497551], abs=1e-6)
    assert d_query.flatten().tolist() == pytest.approx([-0.152571, 0.293599], abs=1e-6)
    assert float(d_theta) == pytest.approx(0.434627, abs=1e-6)


def test_layers_last_first_and_the_number_of_parameters() -> None:
    from transformers import BertConfig, BertModel

    document = Document(5, 768)
    states = torch.cat([torch.full((1, 768), float(12 - i)) for i in range(5)], dim=1)
    assert document(states)[0].shape == (1, 3840) and document.size == 3840
    assert document(states)[0][0, ::768].tolist() == [12, 11, 10, 9, 8]
    with torch.device("meta"):
        bert = sum(p.numel() for p in BertModel(BertConfig(), add_pooling_layer=True).parameters())
        plain = sum(p.numel() for p in BertModel(BertConfig(), add_pooling_layer=False).parameters())
        groups = nn.Linear(3840, 8192), nn.Linear(3840, 400), nn.Embedding(670_091, 400)
        every = nn.Linear(3840, 3956)
    assert bert - plain == 590_592
    assert bert + sum(p.numel() for p in every.parameters()) == 124_677_236
    amazon = bert + sum(p.numel() for module in groups for p in module.parameters())
    assert amazon == 410_520_512
    assert 3 * amazon * 4 / 2**30 == pytest.approx(4.588, abs=1e-3)


def test_the_head_has_these_parameters_and_zeros_in_empty_places() -> None:
    cfg = Config(dataset="Toy", net="lightxml", doc_layers=2, lxml_dim=4, eval_topk=7)
    head = GroupedLightXML(cfg, Stub(6), 7, None, World())  # type: ignore[arg-type]
    head._make(TREE)
    empty = head.table("labels").flatten(0, 1)[head.groups.label_at.flatten() < 0]
    assert len(empty) == 2 and not empty.any()
    assert sum(p.numel() for p in head.net.parameters()) - empty.numel() == (6 + 1) * 3 + (6 + 1) * 4 + 7 * 4
    bound = (6 / (7 + 4)) ** 0.5
    assert 0.5 * bound < float(head.table("labels").detach().abs().max()) < bound


def test_rows_are_the_same_in_every_shard() -> None:
    whole = uniform_rows(slice(0, 9000), 3, 0.5, seed=1)
    assert float(whole.min()) >= -0.5 and float(whole.max()) <= 0.5 and abs(float(whole.mean())) < 0.01
    for rows in (slice(0, 1), slice(4095, 8193), slice(9000, 9000)):
        assert torch.equal(uniform_rows(rows, 3, 0.5, seed=1), whole[rows])


# --- layer gate, token means

LAYERS = torch.tensor([[[1.0, -1], [2, 0], [0, 0], [0, 4], [-1, 1]]])


def test_the_gate_begins_at_one_and_weighs_the_layer_it_picks() -> None:
    gate = LayerGate(5)
    assert torch.equal(gate(LAYERS), LAYERS)
    with torch.no_grad():
        gate.squeeze.weight.zero_(), gate.squeeze.bias.zero_()
        gate.squeeze.weight[0, 3] = gate.squeeze.weight[1, 1] = 1
        gate.excite.weight[3, 0] = 1
    expected = LAYERS.clone()
    expected[0, 3, 1] = 7.046377
    torch.testing.assert_close(gate(LAYERS), expected)
    assert LAYERS.mean(2).tolist() == [[0, 1, 0, 2, 0]]


def test_the_affine_gate_takes_each_layers_maximum() -> None:
    gate = LayerGate(5, affine=True)
    weights = gate.excite(gate.squeeze(torch.tensor([[1.0, 2, 0, 4, 1]])))
    torch.testing.assert_close(gate(LAYERS), weights[..., None] * LAYERS)
    assert sum(p.numel() for p in gate.parameters()) == 27


def test_token_means_begin_at_a_tenth_of_the_text_vector() -> None:
    blend = TokenBlend(2, 3)
    assert nn.functional.softplus(blend.vector).tolist() == pytest.approx([1] * 6, abs=1e-6)
    assert nn.functional.softplus(blend.tokens).tolist() == pytest.approx([0.1] * 6, abs=1e-6)
    z, parts = torch.randn(2, 6), torch.randn(2, 6)
    expected = z + 0.1 * nn.functional.layer_norm(parts.view(2, 2, 3), (3,)).flatten(1)
    torch.testing.assert_close(blend(z, parts), expected, rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in TokenBlend(5, 768).parameters()) == 7680


@pytest.mark.parametrize(("tokens", "same"), [("both", True), ("ranker", False)])
def test_token_means_may_be_for_labels_alone(tokens: Any, same: bool) -> None:
    document = Document(2, 3, "gate", tokens)
    encoded = torch.randn(4, 12)
    for_groups, for_labels = document(encoded)
    assert torch.equal(for_groups, for_labels) is same
    assert torch.equal(for_groups, encoded[:, :6]) is not same


# --- with an encoder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lightxml")


NET: dict[str, Any] = {"net": "lightxml", "doc_layers": 2, "doc_dropout": 0.1, "clf_lr": 0.03}
SMALL: dict[str, Any] = {"lxml_cluster_size": 5, "lxml_topb": 3, "lxml_dim": 16}
ON: dict[str, Any] = {"lxml_se": "gate", "lxml_tokens": "both", "lxml_random_clusters": 1, "lxml_random_labels": 2}


def made(root: Path, **keys: Any) -> tuple[Session, Any]:
    session = Session(Config(**toy_config(root, **{**NET, **keys})), World())
    session.encoder.train()
    session.head.learn_from(session.training_split)
    return session, session.head


def test_switches_that_are_off_change_no_bit(root: Path) -> None:
    """Those that begin as the identity do not either, until they are trained."""
    found = []
    for keys in ({}, {"lxml_encoder_grad": "both", "lxml_group_weight": 1.0}, {"lxml_se": "gate"}):
        _, head = made(root, **SMALL, **keys)
        loss = head.accumulate(head.prepare(Batch(np.arange(16), 0, 0))).loss
        found.append([loss, *(p.grad for p in head.shared[:20] if p.grad is not None)])
    for other in found[1:]:
        assert other[0] == found[0][0]
        assert all(torch.equal(a, b) for a, b in zip(other[1:], found[0][1:], strict=True))


def test_nothing_that_weighs_layers_or_tokens_decays(root: Path) -> None:
    _, head = made(root, **SMALL, **ON)
    groups = head.param_groups()
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(head.shared)
    for name, p in head.net.named_parameters():
        free = name.startswith("document.") or p.dim() == 1
        assert decay[id(p)] == (0 if free else 0.01), name


def test_neighbours_in_the_batch_change_no_gradient(root: Path) -> None:
    session, head = made(root, **SMALL)
    head.net.double()
    z = torch.randn(5, session.encoder.width, dtype=torch.float64)
    texts = head.prepare(Batch(np.arange(5), 0, 0))
    whole = torch.autograd.grad(_sums(head, z.requires_grad_(), texts), z)[0]
    for i in range(5):
        alone = z[i : i + 1].detach().requires_grad_()
        one = head.prepare(Batch(np.arange(i, i + 1), 0, 0))
        torch.testing.assert_close(torch.autograd.grad(_sums(head, alone, one), alone)[0][0], whole[i])


def _sums(head: GroupedLightXML, z: Tensor, texts: PreparedFeatures) -> Tensor:
    """The loss over labels, not divided by the number of candidates."""
    n = []
    original = head.world.sum_

    def counted(count: Tensor) -> Tensor:
        n.append(int(count))
        return original(count)

    head.world = SimpleNamespace(sum_=counted, device=torch.device("cpu"))  # type: ignore[assignment]
    try:
        loss = head.loss(z, texts) - head.cfg.lxml_group_weight * _group_loss(head, z, texts)
        return loss * n[0]
    finally:
        head.world = World()


def _group_loss(head: GroupedLightXML, z: Tensor, texts: PreparedFeatures) -> Tensor:
    logits = head.generator(head.vectors(z, texts)[0])
    return bce_sum(logits, head._truth(texts.positives).groups(head.groups)) / logits.numel()


def test_a_toy_set_is_learnt(root: Path) -> None:
    """200 texts, 64 labels, 8 clusters: texts are told by heart, and their clusters found."""
    from tests.helpers.datasets import make_toy

    data = root / "heart"
    make_toy(data / "Datasets" / "Toy", n_labels=64)
    make_model(data / "model", width=64)
    keys = {"lxml_cluster_size": 8, "lxml_topb": 3, "lxml_dim": 32, "doc_dropout": 0.0, "tf_dropout": 0.0}
    trainer = started(
        config(data, **NET | keys | {"num_epochs": 60, "bsz": 25, "num_val_points": 0, "lr": 1e-3, "clf_lr": 1e-2})
    )
    trainer._train()
    session, head = trainer.session, trainer.session.head
    assert isinstance(head, GroupedLightXML) and head.groups.count == 8
    metrics, _ = session.evaluate("trn")["trn"]
    assert metrics["P@1"] > 90
    session.encoder.eval()
    z = torch.from_numpy(session.embedder().whole(session.tokens("trn"), np.arange(200)))
    chosen = head.generator(z).topk(3).indices
    true = head._truth(Positives.of(session.dataset.trn, np.arange(200))).groups(head.groups)
    assert float(true.gather(1, chosen).sum() / true.sum()) > 0.95


@pytest.fixture(scope="module", params=["grouped", "plain", "sharded"])
def run(root: Path, request: pytest.FixtureRequest) -> Config:
    mode = {"grouped": SMALL | ON, "plain": {"lxml_mode": "plain"}, "sharded": SMALL | {"lxml_table": "sharded"}}
    keys = NET | mode[request.param]
    return train(root, expname=request.param, num_epochs=6, eval_interval=3, save_interval=4, save_keep=9, **keys)[0]


def test_a_killed_run_goes_on_bit_for_bit(run: Config, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(run.out_dir, whole)
    kept = checkpoints(run.out_dir / "checkpoints")
    for path in kept[1:]:
        shutil.rmtree(path)
    (run.out_dir / "metrics.json").unlink()
    Trainer(run).fit()
    assert_same_result(run.out_dir, whole)


def test_the_bundle_predicts_as_the_run_did(run: Config) -> None:
    found = evaluate(Evaluation(Target.of([str(run.out_dir)]), "tst"))
    trained = json.loads((run.out_dir / "metrics.json").read_text())
    assert found is not None and found["labels"]["P@1"] == trained["P@1"] > 0
    bundle = Bundle.load(run.out_dir / "best")
    texts = (run.data_dir / "raw" / "tst_X.txt").read_text().splitlines()
    ids, scores = bundle.search(texts, run.eval_topk)
    stored = load_npz(run.out_dir / "tst_score_mat.npz")
    real = ids >= 0
    assert np.array_equal(ids[real], stored.indices)
    np.testing.assert_allclose(scores[real], stored.data, rtol=1e-4)
    assert (scores[real] > 0).all() and (scores[real] < 1).all()


def test_clusters_that_changed_meanwhile_are_refused(root: Path) -> None:
    cfg, _ = train(root, expname="tree", num_epochs=1, save_interval=3, **NET, **SMALL)
    (cfg.out_dir / "metrics.json").unlink()
    for path in checkpoints(cfg.out_dir / "checkpoints")[1:]:
        shutil.rmtree(path)
    for path in (cfg.data_dir / "structures").iterdir():
        path.unlink()
    from dexml.heads import lightxml

    original = lightxml.clustered_tree
    try:
        lightxml.clustered_tree = lambda features, size, seed: original(features, size, seed + 1)  # type: ignore[assignment]
        with pytest.raises(DataError, match="grouped or numbered in another way"):
            Trainer(cfg).fit()
    finally:
        lightxml.clustered_tree = original
        for path in (cfg.data_dir / "structures").iterdir():
            path.unlink()


def test_clusters_of_a_file(root: Path, tmp_path: Path) -> None:
    tree = from_levels([np.where(np.arange(30) < 28, np.arange(30) % 4, -1)])
    tree.save(tmp_path / "tree.safetensors")
    session, head = made(root, lxml_tree=str(tmp_path / "tree.safetensors"), lxml_topb=4, lxml_dim=8)
    assert head.tree == tree and head.groups.count == 4
    stats = head.accumulate(head.prepare(Batch(np.arange(64), 0, 0)))  # labels 28 and 29 are in no cluster
    assert np.isfinite(stats.loss)
    session.encoder.eval()
    found = head.retriever(session.embedder()).search(session.tokens("tst"), np.arange(50), 30)
    assert set(np.unique(found.ids)) == set(range(-1, 28))
    from_levels([np.arange(29) % 4]).save(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other.safetensors has 29 labels, the data 30"):
        made(root, lxml_tree=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("mode", ["plain", "grouped"])
def test_biases_may_begin_at_how_often_labels_occur(root: Path, mode: str) -> None:
    keys = SMALL if mode == "grouped" else {"lxml_mode": "plain"}
    session, head = made(root, lxml_prior=True, **keys)
    relevance = session.training_split.relevance.toarray() > 0
    bias = head.generator.bias if mode == "grouped" else head.table("bias")
    if mode == "grouped":
        relevance = np.stack([relevance[:, head.tree.clusters.cluster_of == c].any(1) for c in range(len(bias))], 1)
    share = (relevance.sum(0) + 0.5) / (relevance.any(1).sum() + 1)
    np.testing.assert_allclose(bias.detach().sigmoid().numpy(), share, rtol=1e-5)


# --- edge cases


def tiny(root: Path, relevance: Any, n_labels: int) -> None:
    texts = ["red fox", "blue boat", "old river", "green lamp"]
    labels = ["red", "blue", "river", "lamp", "tower", "cloud"][:n_labels]
    write_dataset(root / "Datasets" / "Toy", (texts, relevance), (texts, relevance), labels)
    make_model(root / "model")


@pytest.mark.parametrize("mode", ["grouped", "plain"])
def test_one_label(tmp_path: Path, mode: str) -> None:
    tiny(tmp_path, csr_matrix([[1], [0], [1], [1]]), 1)
    one = {"eval_topk": 1, "track_metric": "P@1", "num_val_points": 0, "num_epochs": 1, "eval_interval": 1}
    _, metrics = train(tmp_path, **NET, **one, lxml_mode=mode)
    assert metrics["P@1"] == 75


@pytest.mark.parametrize(
    "keys",
    [
        {"lxml_cluster_size": 1, "lxml_topb": 6},  # more clusters asked for than there are labels
        {"lxml_cluster_size": 100, "lxml_topb": 75},  # one cluster
        {"lxml_cluster_size": 2, "lxml_topb": 1},  # more positives than candidates
        {"lxml_cluster_size": 2, "lxml_topb": 1, "lxml_random_clusters": 9, "lxml_random_labels": 9},
        {"lxml_cluster_size": 2, "lxml_topb": 1, "lxml_overflow": "replace", "lxml_exact": True},
    ],
)
def test_few_labels(tmp_path: Path, keys: dict[str, Any]) -> None:
    tiny(tmp_path, csr_matrix([[1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0]]), 6)
    few = {"eval_topk": 6, "num_val_points": 0, "num_epochs": 2, "eval_interval": 1}
    cfg, metrics = train(tmp_path, **NET, **few, lxml_dim=4, **keys)
    assert 0 <= metrics["P@1"] <= 75
    assert load_npz(cfg.out_dir / "tst_score_mat.npz").shape == (4, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lxml_mode", "plain", "--lxml_topb", "3"], "--lxml_topb: lxml_topb is for lxml_mode grouped; remove it"),
        (["--lxml_mode", "plain", "--lxml_encoder_grad", "label_only"], "lxml_encoder_grad is for lxml_mode grouped"),
        (["--lxml_mode", "plain", "--lxml_tokens", "ranker"], "lxml_tokens ranker is for lxml_mode grouped"),
        (["--bottleneck_dim", "8"], "bottleneck_dim is not for net lightxml"),
        (["--net", "dist-de-all", "--lxml_dim", "8"], "lxml_dim is for net lightxml, net is dist-de-all"),
    ],
)
def test_settings_without_effect_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config([], ["--dataset", "Toy", "--net", "lightxml", *words])


def test_plain_scores_are_probabilities_of_all_labels(root: Path) -> None:
    session, head = made(root, lxml_mode="plain")
    assert isinstance(head, PlainLightXML)
    z = torch.randn(3, session.encoder.width)
    expected = (z @ head.table("weight").T + head.table("bias")).sigmoid()
    ids, scores = head.best(z, 30)
    torch.testing.assert_close(scores, expected.gather(1, ids))
    assert (scores.diff(dim=1) <= 0).all()
    texts = head.prepare(Batch(np.arange(8), 0, 0))
    dense = torch.from_numpy(session.training_split.relevance[:8].toarray()).bool().float()
    z = torch.randn(8, session.encoder.width)
    logits = head._logits(head.vectors(z, texts)[1])
    expected_loss = nn.functional.binary_cross_entropy_with_logits(logits, dense)
    torch.testing.assert_close(head.loss(z, texts), expected_loss)
