"""Settings of every test process: one thread, no network, no terminal colours."""

import logging
import os

import pytest
from hypothesis import settings

for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
}.items():
    os.environ.setdefault(name, value)

# A busy machine is no defect. A push is judged by examples that are always the same; new ones are found while working.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _log_as_it_was_imported() -> None:
    """What an earlier test of this process made of the project's log does not reach the next."""
    log = logging.getLogger("dexml")
    log.setLevel(logging.NOTSET)
    log.propagate = True
