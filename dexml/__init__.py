"""dexml: dual encoders for extreme multi-label classification.

The names below load on first use, so that `import dexml` stays light.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Dataset": "dexml.data.dataset",
    "Encoder": "dexml.encoders.encoder",
    "LabelIndex": "dexml.index",
    "Trainer": "dexml.training.trainer",
    "load_config": "dexml.config",
}
__all__ = ["Dataset", "Encoder", "LabelIndex", "Trainer", "__version__", "load_config"]


_MODULES = ("data", "encoders", "evaluation", "hub", "index", "losses")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"dexml.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'dexml' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
