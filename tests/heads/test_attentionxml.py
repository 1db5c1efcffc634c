"""AttentionXML: scores down the tree by hand, warm start, odd trees, bundles, files that do not belong together."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dexml.config import Config, ConfigError
from dexml.data.batching import Batch
from dexml.distributed import World
from dexml.encoders.bilstm import BiLSTM, BiLSTMConfig
from dexml.encoders.states import StateEncoder
from dexml.heads.attentionhead import full_best
from dexml.heads.attentionxml import NextLevel
from dexml.heads.shortlists import Shortlists
from dexml.heads.tree import LabelTree, TreeError
from dexml.heads.treebuild import from_levels
from dexml.hub.bundle import Bundle
from dexml.training.trainer import Trainer
from tests.helpers.datasets import make_toy, write_dataset
from tests.helpers.models import make_model
from tests.training.runs import config, started, train

SMALL: dict[str, Any] = {
    "net": "attentionxml",
    "cluster_size": 4,
    "beam_width": 3,
    "word_vectors": "random",
    "word_dim": 8,
    "lstm_width": 8,
    "linear_size": "8",
    "num_epochs": 1,
    "eval_interval": 1,
}
LN = math.log


def level(tree: LabelTree, logits: Sequence[float], **keys: Any) -> NextLevel:
    """A level whose network gives every node one logit."""
    cfg = Config(dataset="Toy", net="attentionxml", beam_width=2, **keys)
    encoder = StateEncoder(BiLSTM(BiLSTMConfig(5, 2, 2)).double())
    head = NextLevel(cfg, encoder, len(logits), None, World())  # type: ignore[arg-type]
    head._make(tree)
    known = torch.tensor(logits, dtype=torch.float64)
    head.net.candidates = lambda states_BTD, mask_BT, cand_BS: known[cand_BS]  # type: ignore[method-assign]
    return head


def below(head: NextLevel, ids: Sequence[int], p: Sequence[float], k: int) -> tuple[list[int], Tensor]:
    above = torch.tensor([ids]), torch.tensor([p], dtype=torch.float64)
    found, scores = head.best_below(torch.zeros(1, 2, dtype=torch.float64), k, np.array([1]), above)
    return found[0].tolist(), scores[0]


def test_the_score_of_a_label_is_the_product_on_its_path() -> None:
    tree = from_levels([np.zeros(1, int)])
    ids, scores = below(level(tree, [LN(3)]), [0], [0.5], 1)
    assert ids == [0]
    assert float(scores[0]) == pytest.approx(0.375)


def test_two_levels_by_hand() -> None:
    head = level(from_levels([np.array([0, 0, 1, 1, 2])]), [0, -LN(3), LN(3), 0, LN(99)])
    ids, scores = below(head, [0, 1], [0.8, 0.5], 10)
    assert ids == [0, 2, 3, 1] + [-1] * 6  # ten were asked for
    assert scores.tolist() == pytest.approx([0.4, 0.375, 0.25, 0.2] + [-math.inf] * 6)
    ids, scores = below(head, [0, 1, 2], [0.8, 0.5, 0.2], 10)
    assert ids == [0, 2, 3, 1, 4] + [-1] * 5  # the third cluster has one label
    assert scores.tolist() == pytest.approx([0.4, 0.375, 0.25, 0.2, 0.198] + [-math.inf] * 5)


def logit(p: float) -> float:
    return LN(p / (1 - p))


@pytest.mark.parametrize(
    ("beam", "expected"),
    [
        (2, {4: 0.324, 0: 0.27, 5: 0.18, 1: 0.045}),
        (4, {4: 0.324, 6: 0.304, 0: 0.27, 5: 0.18, 2: 0.162, 3: 0.054, 1: 0.045, 7: 0.032}),
    ],
)
def test_three_levels_by_hand(beam: int, expected: dict[int, float]) -> None:
    tree = from_levels([np.arange(8) // 4, np.arange(8) // 2])
    keys = {"tree_levels": "1,2"}
    middle = level(tree, [logit(p) for p in (0.5, 0.2, 0.9, 0.8)], train_level=1, **keys)
    last = level(tree, [logit(p) for p in (0.6, 0.1, 0.9, 0.3, 0.9, 0.5, 0.95, 0.1)], **keys)
    kept, p = below(middle, [0, 1], [0.9, 0.4], beam)
    ids, scores = below(last, kept, p.tolist(), 8)
    assert ids[: len(expected)] == list(expected)
    assert scores[: len(expected)].tolist() == pytest.approx(list(expected.values()))


def test_labels_have_their_own_ids_and_equals_go_to_the_smaller() -> None:
    head = level(from_levels([np.array([1, 0, 1, 0, 1])]), [0.0] * 5)
    assert below(head, [1, 0], [0.5, 0.5], 5)[0] == [0, 1, 2, 3, 4, -1][:5]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    root = tmp_path_factory.mktemp("attentionxml")
    cfg, _ = train(root, expname="two", **SMALL)
    return root, cfg


def begun(cfg: Config, **keys: Any) -> NextLevel:
    """The last level as it begins with these keys, though the run is complete."""
    trainer = Trainer(cfg)
    trainer._build()
    assert isinstance(trainer.head, NextLevel)
    trainer.head.cfg = cfg.model_copy(update=keys)
    trainer.head.fit_structure(trainer.session.embedder())
    return trainer.head


def test_the_next_level_begins_as_the_best_of_the_level_above(run: tuple[Path, Config]) -> None:
    root, _ = run
    head = begun(config(root, expname="two", **SMALL))
    best = root / "Results" / "DEXML" / "Toy" / "two" / "level-0" / "best"
    for name, value in load_file(best / "model.safetensors").items():
        assert torch.equal(head.encoder.tf.state_dict()[name], value)
    kept = load_file(best / "head.safetensors")
    for name, value in head.net.state_dict().items():
        if name.startswith(("first.", "mlp.")):
            assert torch.equal(value, kept[f"net.{name}"])
    bound = math.sqrt(6 / sum(head.net.query.shape))
    assert 0.8 * bound < float(head.net.query.detach().abs().max()) <= bound
    assert not any(p.grad is not None for p in head.net.parameters())


def test_queries_of_the_next_level_may_start_at_their_texts(run: tuple[Path, Config]) -> None:
    """Those of label l at the row of its node, from the encoder of the level above."""
    root, _ = run
    head = begun(config(root, expname="two", **SMALL), query_init="texts")
    relevance, encoder = head.split.relevance, head.encoder.eval()
    means = {i: encoder(*_padded(head, i)).mean(0) for i in np.flatnonzero(np.diff(relevance.indptr))}
    of_all = torch.stack(list(means.values())).mean(0)
    for label in (0, 11, 29):
        own = torch.stack([mean - of_all for i, mean in means.items() if relevance[i, label]]).sum(0)
        found = head.net.query[head.number[label]]
        assert float(torch.cosine_similarity(found, own, dim=0).detach()) == pytest.approx(1, abs=1e-5)


def _padded(head: NextLevel, row: int) -> tuple[Tensor, Tensor]:
    ids, lengths = head.query_tokens.gather(np.array([row]))
    return torch.from_numpy(ids.astype(np.int64))[None], torch.from_numpy(lengths.astype(np.int64))


def test_the_loss_is_the_mean_over_real_candidates(run: tuple[Path, Config]) -> None:
    root, _ = run
    trainer = started(config(root, expname="two", **SMALL))
    head, net = trainer.head, trainer.head.net  # type: ignore[attr-defined]
    assert isinstance(head, NextLevel)
    trainer.session.encoder.eval()
    ready = trainer._prepare(Batch(np.arange(7), epoch=1, step=0))[0]
    assert (ready.cand < 0).any() and (ready.cand >= 0).any()  # type: ignore[attr-defined]
    states, lengths = ready.queries.embed(), ready.queries.chunks.sizes  # type: ignore[attr-defined]
    terms = []
    for i, one in enumerate(states.split(lengths.tolist())):
        for node, true in zip(ready.cand[i], ready.target[i], strict=True):  # type: ignore[attr-defined]
            if node >= 0:
                mean = (one @ net.query[node]).softmax(0) @ one
                logit = net.mlp[0]((net.first.weight @ mean + net.first.bias).relu())
                terms.append(binary_cross_entropy_with_logits(logit, torch.full_like(logit, float(true))))
    assert float(head.loss(states, ready).detach()) == pytest.approx(
        float(torch.stack(terms).mean().detach()), rel=1e-5
    )


def test_a_full_beam_of_sure_parents_ranks_as_without_a_tree(run: tuple[Path, Config]) -> None:
    _, cfg = run
    bundle = Bundle.load(cfg.out_dir / "best")
    head: Any = bundle.finder.head  # type: ignore[union-attr]
    lengths = np.array([3, 5])
    states = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        every = torch.arange(len(head.below.first)).expand(2, -1)
        ids, scores = head.best_below(states, 30, lengths, (every, torch.ones(every.shape)))
        flat_ids, flat_scores = head.best(states, 30, lengths)
        node, _ = full_best(head.net, states, lengths, 30)
    assert sorted(ids[0].tolist()) == list(range(30))
    torch.testing.assert_close(scores[:, :30], flat_scores)
    assert torch.equal(ids[:, :30], flat_ids)
    assert not torch.equal(node, flat_ids)


def test_a_bundle_stands_alone_and_predicts_as_the_run(run: tuple[Path, Config], tmp_path: Path) -> None:
    _, cfg = run
    copy = shutil.copytree(cfg.out_dir / "best", tmp_path / "bundle")
    texts = ["the red fox", "a silver lamp near the red fox and one old tower"]
    together = Bundle.load(copy).search(texts, 5)
    for i, text in enumerate(texts):
        ids, scores = Bundle.load(cfg.out_dir / "best").search([text], 5)
        assert ids.tolist() == [together[0][i].tolist()]
        np.testing.assert_allclose(scores[0], together[1][i], atol=1e-6)
    assert (np.diff(together[1]) <= 0).all()


def test_a_bundle_with_another_tree_or_no_level_above_is_refused(run: tuple[Path, Config], tmp_path: Path) -> None:
    _, cfg = run
    for name in ("other", "without"):
        shutil.copytree(cfg.out_dir / "best", tmp_path / name)
    other = from_levels([np.arange(30) % 8])
    other.save(tmp_path / "other" / "above" / "tree.safetensors")
    with pytest.raises(TreeError, match="another label tree"):
        Bundle.load(tmp_path / "other")
    shutil.rmtree(tmp_path / "without" / "above")
    with pytest.raises(ConfigError, match="no network of the level above"):
        Bundle.load(tmp_path / "without")


def test_shortlists_are_those_of_the_level_above(run: tuple[Path, Config]) -> None:
    _, cfg = run
    lists = Shortlists.open(cfg.out_dir)
    assert lists.ids.shape == (200, 3)
    assert (np.diff(lists.scores) <= 0).all()
    assert 0 <= lists.ids.min() <= lists.ids.max() < 8
    assert all(len(set(row)) == 3 for row in lists.ids.tolist())


@pytest.mark.parametrize(
    ("n_labels", "keys"),
    [
        (3, {"cluster_size": 1}),
        (5, {"cluster_size": 8}),
        (1, {}),
        (16, {"cluster_size": 2, "beam_width": 99, "pad_candidates": "random"}),
        (16, {"tree_levels": "1,2,4", "optim": "lazyadam", "lstm_start": True}),
        (9, {"text_encoder": "transformer", "tf_dropout": 0.1}),
    ],
)
def test_small_and_odd_trees_train_to_the_end(tmp_path: Path, n_labels: int, keys: dict[str, Any]) -> None:
    make_toy(tmp_path / "Datasets" / "Toy", n_trn=40, n_tst=10, n_labels=n_labels)
    settings = {**SMALL, "eval_topk": n_labels, "num_val_points": 5, "track_metric": "P@1", **keys}
    make_model(tmp_path / "model")
    cfg, metrics = train(tmp_path, **settings)
    assert 0 <= metrics["P@1"] <= 100
    assert (cfg.out_dir / "best" / "above").is_dir()


def test_labels_that_cannot_be_told_apart_are_clustered_all_the_same(tmp_path: Path) -> None:
    texts, relevance = ["red fox"] * 30, np.ones((30, 12))
    write_dataset(tmp_path / "Datasets" / "Toy", (texts, relevance), (texts[:5], relevance[:5]), ["red fox"] * 12)
    make_model(tmp_path / "model")
    settings = {**SMALL, "eval_topk": 12, "num_val_points": 5, "track_metric": "P@1"}
    assert train(tmp_path, **settings)[1]["P@1"] == 100


def test_too_deep_a_tree_is_refused_before_training(tmp_path: Path) -> None:
    make_toy(tmp_path / "Datasets" / "Toy", n_trn=40, n_tst=10)
    make_model(tmp_path / "model")
    with pytest.raises(ConfigError, match="level 6 has 64 clusters but there are 30 labels"):
        train(tmp_path, **{**SMALL, "num_val_points": 5, "tree_levels": "2,6"})
