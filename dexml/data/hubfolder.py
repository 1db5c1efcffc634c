"""A repository of the Hugging Face Hub as a folder: its files, downloaded once and kept in the Hub's own cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

PASSIVE = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Files of a model that cannot run code when they are read."""


class HubError(ValueError):
    """What the Hub refused, or why it was not reached, and the mend."""


class Download(TypedDict, total=False):
    """What every loader takes beside a Hub id, with the names and meanings of `huggingface_hub.snapshot_download`."""

    revision: str | None
    """branch, tag or commit; default: main"""
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


def hub_folder(repo_id: str, wanted: Sequence[str], **download: Unpack[Download]) -> Path:
    """The folder with those files of a model repository that fit one of the patterns `wanted`.

    Without the Hub (HF_HUB_OFFLINE=1, no network) a download that is complete is used again.
    Raises:
        HubError: no such repository, revision or right to read it, or neither reached nor in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(wanted), **download))
    except RevisionNotFoundError as error:
        raise HubError(f"'{repo_id}' has no revision {download.get('revision')!r} on the Hub") from error
    except GatedRepoError as error:
        raise HubError(f"'{repo_id}' asks for consent: agree on its page on the Hub, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise HubError(f"no '{repo_id}' on the Hub, or a private one: `hf auth login`, or set HF_TOKEN") from error
    except (OSError, ValueError) as error:
        raise HubError(f"'{repo_id}' cannot be had from the Hub: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
