from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError

from dexml import Encoder, LabelIndex
from dexml.cli import main
from dexml.data.hubfolder import HubError
from dexml.hub.bundle import Bundle
from dexml.hub.cardtext import Given
from dexml.hub.labelset import LabelSet
from dexml.hub.package import packed
from dexml.hub.push import push
from tests.helpers.hubserver import Hub, Repository, environment

NAME = "maker/model"
TEXTS = ["the old red fox", "a tower of gold"]
LARGE = 4  # model, projection, label embeddings, index


def send(run: Path, name: str = NAME, **options: object) -> str:
    with packed(run, name, Given(), on_hub=True) as files:
        return push(files, name, **options)  # type: ignore[arg-type]


def test_what_was_pushed_is_loaded_by_its_hub_id(run: Path, hub: Hub) -> None:
    sha = send(run).rsplit("/", 1)[-1]
    here, there = Bundle.load(run), Bundle.load(NAME)
    assert there.predict(TEXTS, 3) == here.predict(TEXTS, 3) and there.calibration == here.calibration
    np.testing.assert_array_equal(Encoder.load(NAME, revision=sha).encode(TEXTS), here.encoder.encode(TEXTS))
    assert here.index is not None
    assert LabelIndex.load(NAME, revision="main").ids.tolist() == here.index.ids.tolist()
    with pytest.raises(HubError, match="has no revision 'v9'"):
        Bundle.load(NAME, revision="v9")


def test_a_new_repository_is_private_unless_told(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    send(run)
    send(run, "maker/open", private=False)
    assert {name: found.private for name, found in hub.repositories.items()} == {NAME: True, "maker/open": False}
    monkeypatch.delenv("HF_TOKEN")
    Bundle.load("maker/open")
    with pytest.raises(HubError, match=f"no '{NAME}' on the Hub, or a private one: `hf auth login`"):
        Bundle.load(NAME)


def test_a_dry_run_lists_the_files_and_sends_nothing(run: Path, hub: Hub, capsys: pytest.CaptureFixture) -> None:
    assert main(["push", str(run), NAME, "--dry-run"]) == 0
    said = capsys.readouterr().out
    size = (run / "best" / "model.safetensors").stat().st_size
    assert f"{size:>14,}  model.safetensors\n" in said and f"{NAME}: " in said and said.endswith("MB, private\n")
    assert not hub.repositories and not hub.uploads


def test_a_connection_that_breaks_once_is_taken_up_again(run: Path, hub: Hub) -> None:
    hub.cuts = 2
    send(run)
    assert len(hub.uploads) == LARGE
    assert Bundle.load(NAME).predict(TEXTS, 3) == Bundle.load(run).predict(TEXTS, 3)


def test_after_a_break_only_the_missing_files_are_sent(run: Path, hub: Hub) -> None:
    hub.allowed = 2
    with pytest.raises(HubError, match=r"uploading '.*' to the Hub.* Try again: what has arrived is not sent twice"):
        send(run)
    assert len(hub.uploads) == 2 and len(hub.repositories[NAME].commits) == 1, "nothing shows before all is there"
    hub.allowed = None
    send(run)
    assert len(hub.uploads) == len(set(hub.uploads)) == LARGE
    Bundle.load(NAME)


def test_a_push_that_was_killed_goes_on(run: Path, hub: Hub, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dexml.cli", "push", str(run), NAME]
    env = os.environ | environment(hub, tmp_path / "home") | {"OMP_NUM_THREADS": "1"}
    hub.allowed = 2
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(hub.uploads) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    hub.allowed = None
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=300)
    assert f"{hub.address}/{NAME}/commit/" in done.stdout
    assert len(hub.uploads) == len(set(hub.uploads)) == LARGE and len(hub.repositories[NAME].commits) == 2


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "no token for the Hub: log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_wrong", "the Hub does not know this token: log in with `hf auth login`"),
        ("hf_other", "this token may not write to 'maker/model': use your own name"),
    ],
)
def test_a_token_that_will_not_do_is_told_before_anything_is_sent(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    assert main(["push", str(run), NAME]) == 2
    assert message in capsys.readouterr().err
    assert not hub.repositories and not hub.uploads


def test_a_repository_that_is_there_gets_another_commit_and_loses_what_is_stale(run: Path, hub: Hub) -> None:
    old = {"index/vectors-000009.faiss": b"old", "calibration.json": b"{}", "notes.md": b"mine", ".gitattributes": b""}
    hub.repositories[NAME] = Repository(private=True, commits=[old])
    send(run, commit_message="retrained")
    held = hub.repositories[NAME].commits[-1]
    assert "index/vectors-000009.faiss" not in held and held["notes.md"] == b"mine"
    assert held["calibration.json"] == (run / "best" / "calibration.json").read_bytes()
    before = len(hub.uploads)
    send(run)
    assert len(hub.uploads) == before, "what has not changed is not sent again"


def test_a_branch_is_made_and_loaded_as_a_revision(run: Path, hub: Hub) -> None:
    for _ in range(2):
        send(run, revision="v2")
    assert "labels.txt" not in (hub.repositories[NAME].files("main") or {})
    assert Bundle.load(NAME, revision="v2").predict(TEXTS, 3) == Bundle.load(run).predict(TEXTS, 3)


def test_nothing_private_goes_into_a_public_repository_by_default(run: Path, hub: Hub) -> None:
    hub.repositories[NAME] = Repository(private=False)
    with pytest.raises(HubError, match="is there already and public: push with --public, or to another name"):
        send(run)
    send(run, private=False)
    assert len(hub.repositories[NAME].commits) == 2


def test_label_changes_are_pushed_and_local_ones_stay_local(run: Path, hub: Hub, tmp_path: Path) -> None:
    send(run)
    changed = LabelSet.load(NAME)
    changed.add(["the old red fox"])
    copy = "maker/copy"
    send(NAME, copy)  # type: ignore[arg-type]
    assert Bundle.load(copy).predict(["the old red fox"], 1)[0][0][0] == "the old red fox"
    held, first = hub.repositories[copy].commits[-1], hub.repositories[NAME].commits[-1]
    assert "label_changes.json" not in held and held["README.md"] == first["README.md"]


def test_a_complete_download_is_used_without_the_hub(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    send(run)
    expected = Bundle.load(NAME).predict(TEXTS, 3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Bundle.load(NAME).predict(TEXTS, 3) == expected
    assert Bundle.load(NAME, local_files_only=True).predict(TEXTS, 3) == expected
    with pytest.raises(HubError, match="'maker/absent' cannot be had from the Hub"):
        Bundle.load("maker/absent")


def test_the_double_refuses_a_card_that_the_hub_would_refuse(run: Path, hub: Hub) -> None:
    with (
        packed(run, NAME, Given(), on_hub=True) as files,
        pytest.raises(HubError, match="Invalid metadata in README"),
    ):
        push({**files, "README.md": b"---\nlicense: 3\n---\n"}, NAME)
    assert issubclass(HfHubHTTPError, OSError)
