"""Probabilistic label trees: loss, probabilities, what a run learns, resumes, exports and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.heads.plt import PLT
from dexml.heads.plttree import log_odds
from dexml.heads.tree import LabelTree, TreeError
from dexml.hub.bundle import Bundle
from dexml.session import Session
from dexml.training.evaluate import Evaluation, evaluate
from dexml.training.target import Target
from tests.heads.plt_step import NET
from tests.heads.trees import T, naive_path
from tests.helpers.datasets import write_dataset
from tests.helpers.models import make_model, toy_config
from tests.training.runs import assert_goes_on_bit_for_bit, config, train

C1 = torch.tensor([0.9, 0.8, 0.5, 0.5, 0.25, 0.9, 0.1], dtype=torch.float64)
LOSSES = {(): 2.302585, (0,): 2.002481, (0, 3): 6.607651}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plt")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with no label, with label 0, with labels 0 and 3, and the tree of the worked example."""
    root = tmp_path_factory.mktemp("four")
    texts = ["a b", "c d", "e f"]
    truth = [[float(label in own) for label in range(4)] for own in LOSSES]
    write_dataset(root / "Datasets" / "Toy", (texts, truth), (texts, truth), list("abcd"))
    make_model(root / "model")
    T.save(root / "tree.safetensors")
    return root


def ready(root: Path, world: World | None = None, **keys: Any) -> tuple[Session, PLT]:
    """A session and its head, in float64 before the first step, without dropout."""
    keys = {**NET, "tf_dropout": 0.0, "doc_dropout": 0.0, **keys}
    session = Session(Config(**toy_config(root, **keys)), world or World())
    session.encoder.double().train()
    assert isinstance(session.head, PLT)
    session.head.learn_from(session.training_split)
    return session, session.head


def worked(four: Path, world: World | None = None, **keys: Any) -> PLT:
    """The head with the conditionals C1 for every text."""
    tree = str(four / "tree.safetensors")
    head = ready(four, world, plt_tree=tree, num_val_points=0, eval_topk=4, track_metric="P@1", **keys)[1]
    with torch.no_grad():
        head._table["bias"].copy_(torch.logit(C1)[head.span])
    return head


# --- the loss


@pytest.mark.parametrize("labels", LOSSES)
def test_the_loss_of_one_text(four: Path, labels: tuple[int, ...]) -> None:
    head = worked(four)
    point = list(LOSSES).index(labels)
    stats = head.accumulate(head.prepare(Batch(np.array([point]), 0, 0)))
    assert stats.loss == pytest.approx(LOSSES[labels], abs=1e-6)


@pytest.mark.parametrize(("reduction", "value"), [("per_doc", 3.637572), ("per_term", 0.839440)])
@pytest.mark.parametrize("table", ["replicated", "sharded"])
def test_the_loss_of_a_batch(four: Path, reduction: str, value: float, table: str) -> None:
    head = worked(four, plt_loss=reduction, plt_table=table)
    assert head.accumulate(head.prepare(Batch(np.arange(3), 0, 0))).loss == pytest.approx(value, abs=1e-6)


def test_ranks_add_their_parts_of_the_loss(four: Path) -> None:
    parts = []
    for rank in (0, 1):
        head = worked(four)
        head.world = World(rank, 2)
        prepared = head.prepare(Batch(np.arange(3), 0, 0))
        parts.append(float(head.loss(prepared.queries.embed(), prepared).detach()))
    assert parts == pytest.approx([0.767528, 2.870044], abs=1e-6)
    assert sum(parts) == pytest.approx(3.637572, abs=1e-6)


@pytest.mark.parametrize("reduction", ["per_doc", "per_term"])
def test_the_gradient_is_that_of_the_naive_formula(root: Path, reduction: str) -> None:
    session, head = ready(root, plt_loss=reduction)
    torch.manual_seed(1)
    with torch.no_grad():
        head._table["weight"].normal_(std=0.1)
    batch = Batch(np.arange(3, 14), 1, 7)
    stats = head.accumulate(head.prepare(batch), scale=2.0)
    z_BD = head.texts.of(batch, 0, head.query_tokens, batch.points)
    weight, bias = (head._table[name].detach().clone().requires_grad_() for name in ("weight", "bias"))
    z = z_BD.embed().requires_grad_()
    terms = []
    for i, point in enumerate(batch.points):
        labels = session.training_split.relevance[[point]].indices
        on = {v for label in labels for v in naive_path(head.tree, int(label))}
        seen = {0, *on, *(c for v in on for c in range(head.tree.n_nodes) if head.tree.parent[c] == v)}
        for v in sorted(seen):
            score = z[i] @ weight[v] + bias[v]
            terms.append(torch.nn.functional.softplus(score) - score * (v in on))
    total = torch.stack(terms).sum() / (len(batch.points) if reduction == "per_doc" else len(terms))
    assert stats.loss == pytest.approx(float(total.detach()), rel=1e-9)
    grads = torch.autograd.grad(2 * total, [weight, bias, z])
    for name, grad in zip(("weight", "bias"), grads, strict=False):
        torch.testing.assert_close(head._table[name].grad, grad, rtol=1e-9, atol=1e-12)
    assert all(p.grad is not None and p.grad.any() for p in list(head.encoder.parameters())[-4:])


def test_training_begins_at_the_frequencies_of_the_nodes(root: Path) -> None:
    session, head = ready(root)
    split, tree = session.training_split, head.tree
    rows = [set(split.relevance[[i]].indices.tolist()) for i in range(len(split))]
    under = [{label for label in range(30) if v in naive_path(tree, label)} for v in range(tree.n_nodes)]
    for v in range(tree.n_nodes):
        parent = under[max(0, tree.parent[v])] if v else set(range(30))
        seen = sum(bool(row & parent) for row in rows)
        true = sum(bool(row & under[v]) for row in rows)
        assert float(log_odds(tree, split, World())[v]) == pytest.approx(np.log((true + 0.5) / (seen - true + 0.5)))
    torch.testing.assert_close(head._table["bias"].detach(), log_odds(tree, split, World()), rtol=1e-6, atol=0)


# --- probabilities and searches


def test_pick_one_label_would_not_be_consistent_but_the_tree_is() -> None:
    """P({b, c}) = .5, P({a}) = .4, P({}) = .1: the best first label is b, not a."""
    sets = {(1, 2): 0.5, (0,): 0.4, (): 0.1}
    tree = LabelTree(np.array([-1, 0, 0, 0]), np.array([-1, 0, 1, 2]), 3)
    picked = [sum(p / len(own) for own, p in sets.items() if label in own) for label in range(3)]
    assert picked == pytest.approx([0.4, 0.25, 0.25])
    assert exact_marginals(tree, sets) == pytest.approx([0.4, 0.5, 0.5])
    assert exact_marginals(T, {(0,): 0.5, (0, 3): 0.2, (): 0.3}) == pytest.approx([0.7, 0, 0, 0.2])
    true = conditionals(T, {(0,): 0.5, (0, 3): 0.2, (): 0.3})
    assert true == pytest.approx([0.7, 1, 0.285714, 1, 0, 0, 1], abs=1e-6)


def conditionals(tree: LabelTree, sets: dict[tuple[int, ...], float]) -> list[float]:
    """Of every node given its parent, by a distribution over label sets."""
    true = [
        sum(p for own, p in sets.items() if any(v in naive_path(tree, label) for label in own))
        for v in range(tree.n_nodes)
    ]
    return [true[0]] + [true[v] / true[tree.parent[v]] if true[tree.parent[v]] else 0.0 for v in range(1, len(true))]


def exact_marginals(tree: LabelTree, sets: dict[tuple[int, ...], float]) -> list[float]:
    """Products of the true conditionals of a distribution over label sets."""
    eta = conditionals(tree, sets)
    return [float(np.prod([eta[v] for v in naive_path(tree, label)])) for label in range(tree.n_labels)]


def test_scores_are_products_along_paths(four: Path) -> None:
    head = worked(four)
    z = torch.zeros(2, head.encoder.width, dtype=torch.float64)
    ids = torch.tensor([[0, 1, 2, 3], [3, -1, 2, 2]])
    assert head.score(z, ids).tolist() == [
        pytest.approx([0.36, 0.18, 0.405, 0.045]),
        pytest.approx([0.045, 0, 0.405, 0.405]),
    ]


@pytest.mark.parametrize(
    ("keys", "ids", "scores"),
    [
        ({"plt_beam": 0}, [2, 0, 1], [0.405, 0.36, 0.18]),
        ({"plt_beam": 1}, [0, 1, -1], [0.36, 0.18, -np.inf]),
        ({"plt_beam": 2}, [2, 0, 1], [0.405, 0.36, 0.18]),
        ({"plt_beam": 0, "plt_threshold": 0.2}, [2, 0, -1], [0.405, 0.36, -np.inf]),
        ({"plt_beam": 100, "plt_table": "sharded"}, [2, 0, 1], [0.405, 0.36, 0.18]),
    ],
)
def test_searches(four: Path, keys: dict[str, Any], ids: list[int], scores: list[float]) -> None:
    head = worked(four, **keys)
    with torch.no_grad():
        found = head.best(torch.zeros(1, head.encoder.width, dtype=torch.float64), 3)
    assert found[0].tolist() == [ids]
    assert found[1].tolist() == [pytest.approx(scores)]


def test_what_a_search_can_have_missed(four: Path) -> None:
    head = worked(four, plt_beam=1)
    ids, largest, mass = head.probable(torch.zeros(1, head.encoder.width, dtype=torch.float64), 1)
    assert (ids.tolist(), largest.tolist(), mass.tolist()) == ([[0]], [pytest.approx(0.45)], [pytest.approx(1.08)])


def test_rare_labels_come_first_where_they_count_more(root: Path) -> None:
    session, plain = ready(root, plt_beam=0, num_val_points=0)
    weighted = ready(root, plt_beam=0, plt_weights="propensity", num_val_points=0)[1]
    assert session.scale is not None
    q = torch.from_numpy(session.scale.inverse_propensity)
    z = torch.zeros(1, plain.encoder.width, dtype=torch.float64)
    every = torch.arange(30)[None]
    wanted = weighted.score(z, every) * q
    with torch.no_grad():
        ids, scores = weighted.best(z, 30)
    torch.testing.assert_close(scores, wanted[:, ids[0]].to(scores), rtol=1e-5, atol=0)
    assert (scores.diff() <= 0).all()
    torch.testing.assert_close(weighted.score(z, every), plain.score(z, every))


# --- runs

RUN = {"net": "plt", "doc_layers": 1, "doc_dropout": 0.1, "plt_arity": 4, "plt_max_leaves": 6, "clf_lr": 0.05}


def test_a_run_learns_exports_and_is_evaluated_again(root: Path) -> None:
    cfg, metrics = train(root, **RUN, num_epochs=8, expname="learns")
    assert metrics["P@1"] > 40
    (row,) = evaluate(Evaluation(Target.of([str(cfg.out_dir)]), "tst")).values()  # type: ignore[union-attr]
    assert row["P@5"] == pytest.approx(metrics["P@5"])
    bundle = Bundle.load(cfg.out_dir / "best")
    (text,) = Session(cfg, World()).dataset.tst.texts[:1]
    ((best, score), *_) = bundle.predict([text], k=3)[0]
    assert best in bundle.labels and 0 < score <= 1


@pytest.mark.parametrize("table", ["replicated", "sharded"])
def test_a_killed_run_goes_on_bit_for_bit(root: Path, tmp_path: Path, table: str) -> None:
    keys = {**RUN, "plt_table": table, "num_epochs": 2, "eval_interval": 1, "save_interval": 3, "save_keep": 9}
    cfg, _ = train(root, **keys, expname=f"killed-{table}")
    assert_goes_on_bit_for_bit(cfg, tmp_path)


def test_weights_of_another_tree_are_refused(root: Path) -> None:
    head, other = ready(root)[1], ready(root, plt_tree="huffman", plt_arity=2)[1]
    with pytest.raises(DataError, match="grouped or numbered in another way"):
        head.net.set_extra_state(other.net.get_extra_state())


def test_trees_from_files(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="no such label tree"):
        ready(root, plt_tree=str(tmp_path / "gone.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"no tree")
    with pytest.raises(TreeError, match="not a label tree"):
        ready(root, plt_tree=str(tmp_path / "broken.safetensors"))
    T.save(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="is a tree of 4 labels, the data have 30"):
        ready(root, plt_tree=str(tmp_path / "other.safetensors"))


def test_a_label_without_a_leaf_cannot_be_trained(four: Path, tmp_path: Path) -> None:
    partial = LabelTree(np.array([-1, 0, 0, 0]), np.array([-1, 0, 1, 2]), 4, {"partial": True})
    partial.save(tmp_path / "partial.safetensors")
    with pytest.raises(TreeError, match="labels 3 have no leaf"):
        ready(four, plt_tree=str(tmp_path / "partial.safetensors"), num_val_points=0, eval_topk=4, track_metric="P@1")


def test_one_label(tmp_path: Path) -> None:
    write_dataset(tmp_path / "Datasets" / "Toy", (["a b", "c d"], [[1], [1]]), (["e"], [[1]]), ["red"])
    make_model(tmp_path / "model")
    metrics = train(tmp_path, **RUN, eval_topk=1, track_metric="P@1", num_val_points=0, num_epochs=1)[1]
    assert metrics["P@1"] == 100


def test_keys_of_trees_are_refused_for_other_nets(root: Path) -> None:
    with pytest.raises(ConfigError, match="plt_beam is for net plt, net is dist-de-all"):
        config(root, plt_beam=3)
