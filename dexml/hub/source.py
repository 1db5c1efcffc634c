"""Where a bundle is: a folder, the best model of a run, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Unpack

from dexml.data.files import DataError
from dexml.data.hubfolder import PASSIVE, Download, hub_folder

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = (*PASSIVE, "*dexml.yaml", "index/*", "README.md")
"""What a bundle consists of."""


def bundle_folder(source: str | Path, **download: Unpack[Download]) -> Path:
    """The folder of the bundle `source`; of a run it is best/.

    Raises:
        DataError, HubError: neither such a folder nor such a repository.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / "best" if (folder / "best").is_dir() else folder
    if folder.exists() or not HUB_ID.fullmatch(str(source)):
        raise DataError(f"{source}: no such folder, and no Hub id, which looks like 'owner/name'")
    return hub_folder(str(source), FILES, **download)
