"""A bundle sent to the Hugging Face Hub as one commit: all of it arrives, or nothing.

Large files go up before the commit. When that breaks off, the next try sends only what the Hub does not have yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from dexml.data.hubfolder import HubError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OURS = ("index/*", "[0-9]_*/*", "calibration.json", "*.safetensors", "metrics.json", "dexml.yaml")
"""Files of a bundle that was there before are taken away where the new one has none of that name."""
LOG_IN = (
    "log in with `hf auth login`, or set HF_TOKEN to a token that may write (https://huggingface.co/settings/tokens)"
)


def push(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    commit_message: str = "Upload with dexml",
    revision: str | None = None,
) -> str:
    """Makes the repository if there is none, sends the files, and gives the address of the commit.

    Args:
        private: of a new repository; one that is there must be private too.
        revision: the branch, made if there is none; default: main.
    Raises:
        HubError: no valid token, no right to write there, a public repository where a private one was asked for, or
            the connection broke; saying what to do.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi(token=token)
    try:
        _check_token(api)
        _make_repository(api, repo_id, private)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        held = api.list_repo_files(repo_id, revision=revision)
        stale = [name for name in held if name not in files and any(fnmatch(name, pattern) for pattern in OURS)]
        gone = [CommitOperationDelete(name) for name in stale]
        new = [CommitOperationAdd(name, content) for name, content in files.items()]
        done = api.create_commit(repo_id, [*gone, *new], commit_message=commit_message, revision=revision)
    except HfHubHTTPError as error:
        raise HubError(_refusal(error, repo_id)) from error
    except HubError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HubError(f"'{repo_id}': {first_line(error)} Try again: what has arrived is not sent twice") from error
    return str(done.commit_url)


def _check_token(api: HfApi) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        api.whoami()
    except LocalTokenNotFoundError as error:
        raise HubError(f"no token for the Hub: {LOG_IN}") from error


def _make_repository(api: HfApi, repo_id: str, private: bool) -> None:
    if not api.repo_exists(repo_id):
        api.create_repo(repo_id, private=private)
    elif private and not api.repo_info(repo_id).private:
        raise HubError(f"'{repo_id}' is there already and public: push with --public, or to another name")


def _refusal(error: Exception, repo_id: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the Hub does not know this token: {LOG_IN}"
    if status == 403:
        return f"this token may not write to '{repo_id}': use your own name before the slash, or {LOG_IN}"
    return f"'{repo_id}': the Hub answered: {first_line(error)}"
