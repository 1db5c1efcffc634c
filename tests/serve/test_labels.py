"""Labels added and removed over HTTP."""

from pathlib import Path

import pytest

from dexml.data.files import DataError
from dexml.serve.command import TOKEN as VARIABLE
from dexml.serve.command import read_token
from dexml.serve.served import Served
from tests.serve.service import LABELS, TOKEN, make_bundle, serving

BEARER = {"authorization": f"Bearer {TOKEN}"}


def test_changes_need_the_token(tmp_path: Path) -> None:
    models = [Served.load(str(make_bundle(tmp_path)), "plain", most=100)]
    with serving(models) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"authorization": "Basic x"}):
            for method, path, body in (("POST", "/labels", {"labels": ["x"]}), ("DELETE", "/labels?id=0", None)):
                reply = client.ask(method, path, body, headers)
                assert (reply.status, reply.json) == (401, {"detail": "label changes need the token"})
                assert reply.headers["www-authenticate"] == "Bearer"
    with serving(models, token=None) as client:
        reply = client.ask("POST", "/labels", {"labels": ["x"]}, BEARER)
        assert (reply.status, reply.json["detail"][:21]) == (403, "label changes are off")
        assert not client.ask("GET", "/models").json[0]["changeable"]
    assert len(models[0].labels) == len(LABELS)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def refuse(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return False

    monkeypatch.setattr("dexml.serve.service.hmac.compare_digest", refuse)
    with serving([Served.load(str(make_bundle(tmp_path)), "plain", most=100)]) as client:
        assert client.ask("POST", "/labels", {"labels": ["x"]}, BEARER).status == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


def test_an_added_label_is_found_at_once_and_after_a_restart(tmp_path: Path) -> None:
    folder = str(make_bundle(tmp_path))
    with serving([Served.load(folder, "plain", most=100)]) as client:
        added = client.ask("POST", "/labels", {"labels": ["silver spoon", "copper coin"]}, BEARER)
        assert (added.status, added.json) == (200, {"model": "plain", "ids": [7, 8], "count": 9})
        assert client.predict("silver spoon", k=1)["labels"][0]["text"] == "silver spoon"
        removed = client.ask("DELETE", "/labels?id=0&id=8", None, BEARER)
        assert (removed.status, removed.json) == (200, {"model": "plain", "ids": [0, 8], "count": 7})
    with serving([Served.load(folder, "plain", most=100)]) as client:
        found = client.predict("silver spoon", k=100)["labels"]
        assert found[0]["text"] == "silver spoon"
        assert sorted(label["id"] for label in found) == [1, 2, 3, 4, 5, 6, 7]
        assert client.ask("POST", "/labels", {"labels": ["tin tray"]}, BEARER).json["ids"] == [9], "no id comes twice"


def test_a_model_without_labels_answers_that_there_are_none(tmp_path: Path) -> None:
    with serving([Served.load(str(make_bundle(tmp_path, ["one", "two"])), "plain", most=100)]) as client:
        assert client.ask("DELETE", "/labels?id=0&id=1", None, BEARER).json["count"] == 0
        assert client.predict("a fox")["labels"] == []
        assert client.ask("POST", "/labels", {"labels": ["fox"]}, BEARER).status == 200
        assert client.predict("a fox")["labels"][0]["text"] == "fox"


def test_a_change_that_cannot_be_made_changes_nothing(tmp_path: Path) -> None:
    with serving([Served.load(str(make_bundle(tmp_path)), "plain", most=100)]) as client:
        for body, status, told in (
            ({"labels": ["red fox"]}, 409, "'red fox' is a label already: id 0"),
            ({"labels": ["new", "new"]}, 409, "'new' is given twice"),
            ({"labels": ["two\nlines"]}, 409, "'two\\nlines' cannot be a label: a label is one line of text"),
            ({"labels": [" "]}, 422, "the label is empty"),
            ({"labels": ["x" * 2001]}, 422, "the label has 2,001 characters: at most 2,000"),
            ({"labels": []}, 422, "labels: List should have at least 1 item after validation, not 0"),
            ({"labels": ["new"], "model": "x"}, 404, "no model 'x': there are plain"),
        ):
            reply = client.ask("POST", "/labels", body, BEARER)
            assert (reply.status, reply.json) == (status, {"detail": told})
        assert client.ask("DELETE", "/labels?id=99", None, BEARER).status == 409
        assert client.ask("DELETE", f"/labels?id={10**30}", None, BEARER).status in (409, 422)
        assert client.ask("DELETE", "/labels", None, BEARER).status == 422
        assert client.ask("GET", "/models").json[0]["labels"] == len(LABELS)


def test_a_token_is_long_and_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(VARIABLE, "0123456789abcdef")
    assert read_token(None) == "0123456789abcdef"
    file = tmp_path / "token"
    with pytest.raises(DataError, match="no such file: write the token into it"):
        read_token(file)
    file.write_text("abcdef0123456789\n")
    assert read_token(file) == "abcdef0123456789"
    for bad in ("short", "0123456789abcde ü", "0123456 789abcdef"):
        file.write_text(bad)
        with pytest.raises(DataError, match=r"token: the token must be 16 or more ASCII characters without spaces"):
            read_token(file)
