"""Answers of the service, compared with the bundle's own."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dexml.data.tokens import TextTokens
from dexml.evaluation.retrieval import Predictions
from dexml.hub.labelset import LabelSet
from dexml.index import LabelIndex
from dexml.serve.served import Query, Served
from tests.serve.service import LABELS, TEXTS, TOKEN, Client, serving


def test_labels_come_as_the_bundle_predicts_them(client: Client, models: list[Served]) -> None:
    for text in TEXTS:
        found = client.predict(text, k=4)
        assert found["model"] == "plain"
        for label, (name, score) in zip(found["labels"], models[0].labels.bundle.predict([text], 4)[0], strict=True):
            assert LABELS[label["id"]] == label["text"] == name
            assert label["score"] == pytest.approx(score, abs=2e-6)
            assert "probability" not in label
    assert "neighbours" not in found


def test_requests_at_the_same_time_get_what_each_would_get_alone(client: Client) -> None:
    asked = [(f"{TEXTS[i % 4]} {'very ' * (i % 7)}{i % 5}", 1 + i % 6) for i in range(60)]
    alone = [client.predict(text, k=k) for text, k in asked]
    with ThreadPoolExecutor(12) as crowd:
        together = list(crowd.map(lambda one: client.predict(one[0], k=one[1]), asked))
    for one, other in zip(alone, together, strict=True):
        assert [label["id"] for label in one["labels"]] == [label["id"] for label in other["labels"]]
        scores = [[label["score"] for label in found["labels"]] for found in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-6)


def test_an_answer_of_an_approximate_index_does_not_depend_on_what_others_ask(models: list[Served]) -> None:
    bundle, rng = models[0].labels.bundle, np.random.default_rng(0)
    assert bundle.index is not None
    index = LabelIndex.build(rng.normal(size=(500, bundle.index.width)).astype(np.float32), kind="hnsw", M=2)
    labels = LabelSet(replace(bundle, index=index, labels=[f"label {i}" for i in range(500)]))
    served = Served("approximate", labels, most=100)
    queries = [Query(text, k) for text, k in zip(TEXTS, (1, 100, 3, 40), strict=True)]
    ids = [[label["id"] for label in found["labels"]] for found in served.answer(queries)]
    alone = [[label["id"] for label in served.answer([query])[0]["labels"]] for query in queries]
    assert ids == alone
    assert [len(row) for row in ids] == [1, 100, 3, 40]


def test_a_batch_is_each_text_asked_alone(client: Client) -> None:
    found = client.ask("POST", "/predict/batch", {"texts": TEXTS, "k": 3, "model": "sure", "neighbours": 1}).json
    assert found["model"] == "sure"
    for text, one in zip(TEXTS, found["results"], strict=True):
        alone = client.predict(text, k=3, model="sure", neighbours=1)
        assert [label["id"] for label in one["labels"]] == [label["id"] for label in alone["labels"]]
        assert one["neighbours"][0]["text"] == alone["neighbours"][0]["text"] == text
        assert one["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-5)


def test_a_calibrated_model_tells_probabilities_and_cuts_by_them(client: Client, models: list[Served]) -> None:
    whole = client.predict(TEXTS[0], k=100, model="sure")["labels"]
    assert len(whole) == len(LABELS)
    probability = models[1].labels.bundle.probability(np.array([[label["score"] for label in whole]]))[0]
    assert [label["probability"] for label in whole] == pytest.approx(probability.tolist(), abs=1e-5)
    middle = (whole[2]["probability"] + whole[3]["probability"]) / 2
    cut = client.predict(TEXTS[0], k=100, model="sure", threshold=middle)["labels"]
    assert [label["id"] for label in cut] == [label["id"] for label in whole[:3]]


def test_what_cannot_be_asked_is_told_in_one_sentence(client: Client) -> None:
    for wanted, status, told in (
        ({"k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ({"k": 101}, 422, "k is 101: at most 100 here"),
        ({"k": "5"}, 422, "k: Input should be a valid integer"),
        ({"k": True}, 422, "k: Input should be a valid integer"),
        ({"neighbours": 1}, 422, "plain is served without training texts: neighbours must be 0"),
        ({"threshold": 0.5}, 422, "plain is not calibrated: its scores are not probabilities; no threshold"),
        ({"threshold": float("nan")}, 422, "threshold: Input should be"),
        ({"model": "other"}, 404, "no model 'other': there are plain, sure"),
        ({"topk": 5}, 422, "topk: Extra inputs are not permitted"),
        ({"text": 5}, 422, "text: Input should be a valid string"),
        ({"text": " \n "}, 422, "the text is empty"),
    ):
        reply = client.ask("POST", "/predict", {"text": "a fox", **wanted})
        assert (reply.status, reply.json["detail"][: len(told)]) == (status, told)
    assert client.ask("POST", "/predict", {}).json == {"detail": "text: Field required"}
    assert client.ask("POST", "/predict/batch", {"texts": []}).status == 422
    assert client.ask("POST", "/predict/batch", {"texts": ["a", ""]}).json == {"detail": "text 2 is empty"}
    assert client.ask("GET", "/predict").status == 405
    assert client.ask("GET", "/nowhere").status == 404


def test_the_models_are_described(client: Client) -> None:
    plain, sure = client.ask("GET", "/models").json
    assert plain == {
        **{"name": "plain", "labels": len(LABELS), "calibrated": False, "changeable": True},
        **{"training_texts": 0, "examples": []},
    }
    assert (sure["calibrated"], sure["training_texts"], sure["examples"]) == (True, 4, TEXTS)


class Counting:
    """A head that finds the labels 0, 1, 2, ... for every text."""

    def search(self, tokens: TextTokens, rows: NDArray[np.int64], k: int) -> Predictions:
        ids = np.tile(np.arange(k), (len(rows), 1))
        return Predictions(ids, -ids.astype(np.float32))


def test_a_head_with_layers_of_its_own_is_served_too_but_its_labels_stay(models: list[Served]) -> None:
    bundle = replace(models[0].labels.bundle, index=None, finder=Counting(), labels_are_texts=False)  # type: ignore[arg-type]
    with serving([Served("head", LabelSet(bundle), most=100)]) as client:
        assert client.predict("a fox", k=2)["labels"] == [
            {"id": 0, "text": LABELS[0], "score": 0.0},
            {"id": 1, "text": LABELS[1], "score": -1.0},
        ]
        assert not client.ask("GET", "/models").json[0]["changeable"]
        reply = client.ask("POST", "/labels", {"labels": ["x"]}, {"authorization": f"Bearer {TOKEN}"})
        assert (reply.status, reply.json["detail"][:37]) == (409, "the labels of this model cannot chang")
