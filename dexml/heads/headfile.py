"""`head.safetensors`: the tensors that a head keeps in a bundle, and what they belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dexml.config import ConfigError
from dexml.data.files import DataError
from dexml.hub.bundle import HEAD, read_labels

NET, TABLE = "net.", "table."


def write_head(
    folder: Path, name: str, net: Mapping[str, Tensor], tables: Mapping[str, Tensor], digests: Mapping[str, str]
) -> None:
    """Writes the modules and the whole tables of the head `name`, with the digests of what they were trained with."""
    tensors = {f"{NET}{key}": value.detach().cpu().contiguous() for key, value in net.items()}
    tensors |= {f"{TABLE}{key}": value.contiguous() for key, value in tables.items()}
    # the labels are checked by their texts, read from the folder as it is now
    facts = {"head": name, "labels": _digest(read_labels(folder)), "sha256": json.dumps(dict(digests))}
    save_file(tensors, folder / HEAD, facts)


def read_head(
    folder: Path, name: str, labels: Sequence[str], rows: Mapping[str, slice]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Modules, and these rows of the tables.

    Raises:
        DataError: there is no such file, it cannot be read, or another head wrote it.
        ConfigError: it was trained with other labels.
    """
    with _opened(folder) as file:
        facts = file.metadata() or {}
        if facts.get("head") != name:
            raise DataError(f"{folder / HEAD} is of the head {facts.get('head')}, the config asks for {name}")
        if facts.get("labels") != _digest(labels):
            raise ConfigError(
                f"{folder} predicts the labels that it was trained with and no others, but here are other ones "
                f"({len(labels)}): evaluate it on data with its own labels"
            )
        net = {key.removeprefix(NET): file.get_tensor(key) for key in file.keys() if key.startswith(NET)}  # noqa: SIM118
        return net, {key: file.get_slice(f"{TABLE}{key}")[span] for key, span in rows.items()}


def read_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that the head was trained with, by their names; DataError if there is no such file."""
    with _opened(folder) as file:
        return json.loads((file.metadata() or {}).get("sha256", "{}"))


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    try:
        with safe_open(folder / HEAD, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / HEAD} cannot be read ({error}): export the model again") from error


def _digest(labels: Sequence[str]) -> str:
    hashed = hashlib.sha256()
    for label in labels:
        hashed.update(label.encode() + b"\n")
    return hashed.hexdigest()
