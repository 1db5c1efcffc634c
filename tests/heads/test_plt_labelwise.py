"""Label trees whose nodes look at every token: loss and search against naive ones, runs, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch
from dexml.data.files import DataError
from dexml.distributed import World
from dexml.heads import plt_labelwise
from dexml.heads.plt_labelwise import LabelwisePLT
from dexml.heads.tree import TreeError
from dexml.hub.bundle import Bundle
from dexml.session import Session
from tests.heads.attention_step import PLT
from tests.heads.trees import naive_path
from tests.helpers.models import toy_config
from tests.training.runs import assert_goes_on_bit_for_bit, config, train

STILL = {**PLT, "word_dropout": 0.0, "lstm_dropout": 0.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labelwise")


def ready(root: Path, **keys: Any) -> tuple[Session, LabelwisePLT]:
    """A session and its head in float64, without dropout, queries and MLP large enough to tell texts apart."""
    session = Session(Config(**toy_config(root, **{**STILL, **keys})), World())
    session.encoder.double().train()
    head = session.head
    assert isinstance(head, LabelwisePLT)
    head.learn_from(session.training_split)
    torch.manual_seed(2)
    with torch.no_grad():
        for p in head.net.parameters():
            p.normal_(std=0.7)
        for name, p in session.encoder.named_parameters():
            if "embed" in name or "word" in name:
                p.normal_()
    return session, head


def naive_score(head: LabelwisePLT, states_TD: Tensor, node: int, queries: Tensor | None = None) -> Tensor:
    """By the formula: softmax over the tokens, the mean that the node sees, the MLP."""
    query = (head.net.query if queries is None else queries)[node]
    seen = (states_TD @ query).softmax(0) @ states_TD
    for layer in (head.net.first, *list(head.net.mlp)[:-1]):
        seen = layer(seen).relu()
    return head.net.mlp[-1](seen).squeeze()


def states(head: LabelwisePLT, points: np.ndarray) -> list[Tensor]:
    """[T, D] of each text."""
    queries = head.texts.of(Batch(points, 0, 0), 0, head.query_tokens, points)
    return list(queries.embed().detach().split(queries.chunks.sizes.tolist()))


@pytest.mark.parametrize("reduction", ["per_doc", "per_term"])
@pytest.mark.parametrize("optim", ["adamw", "lazyadam"])
@pytest.mark.parametrize("pairs", [1 << 16, 5])
def test_loss_and_gradient_are_those_of_the_formula(
    root: Path, monkeypatch: pytest.MonkeyPatch, reduction: str, optim: str, pairs: int
) -> None:
    monkeypatch.setattr(plt_labelwise, "PAIRS", pairs)
    session, head = ready(root, plt_loss=reduction, optim=optim)
    batch = Batch(np.arange(3, 14), 0, 0)
    stats = head.accumulate(head.prepare(batch), scale=2.0)
    queries = head.net.query.detach().clone().requires_grad_()
    tree, terms = head.tree, []
    for point, states_TD in zip(batch.points, states(head, batch.points), strict=True):
        on = {v for label in session.training_split.relevance[[point]].indices for v in naive_path(tree, int(label))}
        for v in sorted({0, *on, *(c for v in on for c in range(tree.n_nodes) if tree.parent[c] == v)}):
            score = naive_score(head, states_TD, v, queries)
            terms.append(torch.nn.functional.softplus(score) - score * (v in on))
    total = torch.stack(terms).sum() / (len(batch.points) if reduction == "per_doc" else len(terms))
    assert stats.loss == pytest.approx(float(total.detach()), rel=1e-9)
    layers = [head.net.first.weight, head.net.mlp[-1].bias]
    found = [head.net.query.grad.to_dense(), *(p.grad.clone() for p in layers)]  # type: ignore[union-attr]
    for one, other in zip(found, torch.autograd.grad(2 * total, [queries, *layers]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)
    assert all(p.grad is not None and p.grad.any() for p in list(head.encoder.parameters())[-2:])


def naive_probabilities(head: LabelwisePLT, states_TD: Tensor) -> list[float]:
    """Of every label, the product on its path."""
    with torch.no_grad():
        p = [float(naive_score(head, states_TD, v).sigmoid()) for v in range(head.tree.n_nodes)]
    return [float(np.prod([p[v] for v in naive_path(head.tree, label)])) for label in range(head.n_labels)]


@pytest.mark.parametrize("beam", [0, 99])
@pytest.mark.parametrize("pairs", [1 << 16, 7])
def test_a_search_finds_the_best_of_all_labels(
    root: Path, monkeypatch: pytest.MonkeyPatch, beam: int, pairs: int
) -> None:
    monkeypatch.setattr(plt_labelwise, "PAIRS", pairs)
    monkeypatch.setattr("dexml.heads.plthead.PAIRS", 3 * pairs)
    head = ready(root, plt_beam=beam)[1]
    head.encoder.eval()
    texts = states(head, np.arange(9))
    lengths = np.array([len(one) for one in texts])
    assert len(set(lengths)) > 2
    with torch.no_grad():
        ids, scores = head.best(torch.cat(texts), 6, lengths)
        every = head.score(torch.cat(texts), torch.arange(-1, 30).expand(9, -1), lengths)
    for row, states_TD in enumerate(texts):
        wanted = np.array(naive_probabilities(head, states_TD))
        assert ids[row].tolist() == sorted(range(30), key=lambda label: (-wanted[label], label))[:6]
        np.testing.assert_allclose(scores[row], wanted[ids[row]], rtol=1e-9)
        np.testing.assert_allclose(every[row], [0, *wanted], rtol=1e-9)


def test_a_text_alone_scores_as_among_longer_ones(root: Path) -> None:
    head = ready(root, plt_beam=2)[1]
    head.encoder.eval()
    texts = states(head, np.arange(9))
    with torch.no_grad():
        together = head.best(torch.cat(texts), 5, np.array([len(one) for one in texts]))
        for row, one in enumerate(texts):
            ids, scores = head.best(one, 5, np.array([len(one)]))
            assert ids.tolist() == together[0][[row]].tolist()
            torch.testing.assert_close(scores, together[1][[row]], rtol=1e-9, atol=0)


def test_training_begins_at_the_log_odds_of_a_true_node(root: Path) -> None:
    session = Session(Config(**toy_config(root, **STILL, query_init="texts")), World())
    head = session.head
    assert isinstance(head, LabelwisePLT)
    head.learn_from(session.training_split)
    seen = true = 0
    for row in range(len(session.training_split)):
        labels = session.training_split.relevance[[row]].indices
        on = {v for label in labels for v in naive_path(head.tree, int(label))}
        true += len(on)
        seen += (1 + sum(int(head.tree.n_child[v]) for v in on)) * bool(on)
    assert head.net.mlp[-1].bias.item() == pytest.approx(np.log((true + 0.5) / (seen - true + 0.5)), rel=1e-6)
    outputs, wanted = head.outputs().toarray(), np.zeros((len(session.training_split), head.tree.n_nodes), bool)
    for row, label in zip(*session.training_split.relevance.nonzero(), strict=True):
        wanted[row, naive_path(head.tree, int(label))] = True
    assert np.array_equal(outputs, wanted)


# --- runs

RUN = {
    **{**PLT, "query_init": "texts", "lstm_width": 16, "word_dim": 16, "word_dropout": 0.1, "lstm_dropout": 0.1},
    **{"bsz": 8, "num_epochs": 15, "eval_interval": 15, "clf_lr": 0.01, "lr": 0.01},
}


def test_a_run_learns_exports_and_predicts(root: Path) -> None:
    cfg, metrics = train(root, **RUN, expname="learns")
    assert metrics["P@1"] > 40
    bundle = Bundle.load(cfg.out_dir / "best")
    (text,) = Session(cfg, World()).dataset.tst.texts[:1]
    ((best, score), *_) = bundle.predict([text], k=3)[0]
    assert best in bundle.labels and 0 < score <= 1
    for name in ("head.safetensors", "tree.safetensors"):
        broken = Path(shutil.copytree(cfg.out_dir / "best", root / f"broken {name}"))
        (broken / name).write_bytes((broken / name).read_bytes()[:100])
        with pytest.raises((DataError, TreeError), match=f"{name}.*again"):
            Bundle.load(broken)


def test_on_a_transformer(root: Path) -> None:
    keys = {"net": "plt", "plt_scorer": "labelwise", "plt_arity": 3, "plt_max_leaves": 4, "linear_size": "8"}
    keys |= {"text_encoder": "transformer", "query_init": "texts", "bsz": 8, "num_epochs": 10, "eval_interval": 10}
    assert train(root, **keys, clf_lr=0.02, expname="transformer")[1]["P@1"] > 40


def test_a_killed_run_goes_on_bit_for_bit(root: Path, tmp_path: Path) -> None:
    keys = {**RUN, "num_epochs": 2, "eval_interval": 1, "save_interval": 3, "save_keep": 9, "optim": "lazyadam"}
    cfg, _ = train(root, **keys, expname="killed")
    assert_goes_on_bit_for_bit(cfg, tmp_path)


def test_weights_of_another_tree_are_refused(root: Path) -> None:
    head, other = ready(root)[1], ready(root, plt_tree="random")[1]
    with pytest.raises(DataError, match="grouped or numbered in another way"):
        head.net.load_state_dict(other.net.state_dict())


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"plt_table": "sharded"}, "plt_table is for plt_scorer linear, plt_scorer is labelwise; remove it"),
        ({"doc_layers": 2}, "doc_layers is for plt_scorer linear"),
        ({"attention_output": "lwan"}, "attention_output lwan is for net bilstm: the nodes of plt share their MLP"),
        ({"head_epochs": 1}, "vector of the text alone, not for net plt with plt_scorer labelwise"),
        ({"predict_mode": "mix"}, "predict_mode mix compares vectors of texts, net plt has none"),
        ({"plt_scorer": "linear"}, "linear_size is for plt_scorer labelwise, plt_scorer is linear; remove it"),
        ({"cluster_size": 4}, "cluster_size is for net attentionxml, net is plt; remove it"),
    ],
)
def test_keys_that_mean_nothing_are_refused(root: Path, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(root, **{**PLT, **keys})
