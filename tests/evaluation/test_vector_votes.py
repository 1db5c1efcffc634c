"""Training points vote by the text vectors of heads that have vectors of any length, beside label probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dexml.config import Config, ConfigError, load_config
from dexml.distributed import World
from dexml.session import Session
from dexml.training.modes import evaluate_modes
from tests.helpers.models import toy_config

K, WEIGHT, TAU = 4, 0.5, 0.1
MHE = {"net": "mhe", "mhe_lengths": "5x6"}
HEADS = {
    "lightxml": {"net": "lightxml", "lxml_mode": "plain"},
    "plt": {"net": "plt"},
    "product": MHE | {"mhe_kind": "product"},
    "sampling": MHE | {"mhe_kind": "sampling"},
}


@pytest.mark.parametrize("name", HEADS)
def test_votes_go_by_cosine_and_label_scores_become_shares(tmp_path: Path, name: str) -> None:
    keys = {"predict_mode": "mix", "knn_k": K, "knn_weight": WEIGHT, "knn_tau": TAU, "doc_layers": 1, **HEADS[name]}
    session = Session(Config(**toy_config(tmp_path, num_threads=1, **keys)), World())
    session.head.learn_from(session.training_split)
    found = evaluate_modes(session, ["tst"], "mix")["tst"]
    label, neighbour = (found[way][1] for way in ("labels", "knn"))
    rows = {"tst": np.arange(len(session.dataset.tst)), "trn": session.train_rows}
    tst, trn = (session.embedder().whole(session.tokens(part), some) for part, some in rows.items())
    cosine = (tst @ trn.T) / np.linalg.norm(tst, axis=1)[:, None] / np.linalg.norm(trn, axis=1)
    truth = session.dataset.trn.relevance[session.train_rows].toarray()
    for i, row in enumerate(cosine):
        near = np.argsort(-row, kind="stable")[:K]
        weights = np.exp((row[near] - row[near[0]]) / TAU)
        vote = weights @ truth[near] / (weights @ truth[near]).sum()
        scores = label.scores[i].astype(float)
        own = np.exp(scores) if name == "sampling" else scores  # its scores are logits
        share = np.zeros(len(vote))
        share[label.ids[i]] = own / own.sum()
        mixed = WEIGHT * vote + (1 - WEIGHT) * share
        for lists, expected in ((neighbour, vote), (found["mix"][1], mixed)):
            real = lists.ids[i] >= 0
            np.testing.assert_allclose(lists.scores[i][real], expected[lists.ids[i][real]], rtol=1e-4)
            np.testing.assert_allclose(lists.scores[i][real], np.sort(expected)[::-1][: real.sum()], rtol=1e-4)


def test_a_net_of_token_states_has_no_vectors_to_vote_by() -> None:
    with pytest.raises(ConfigError, match="predict_mode knn compares vectors of texts, net bilstm has none"):
        load_config([], ["--dataset", "Toy", "--net", "bilstm", "--predict_mode", "knn"])
