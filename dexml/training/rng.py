"""The random state of a process as tensors, for a checkpoint."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


def seed_rng(seed: int) -> None:
    """Starts every random stream of this process from `seed`."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def rng_state() -> dict[str, Tensor]:
    """The random state of this process: torch, CUDA, numpy and Python."""
    twister = np.random.get_state(legacy=False)  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(twister["state"]["key"].astype(np.int64)),
        "numpy_rest": torch.tensor(
            [twister["state"]["pos"], twister["has_gauss"], twister["gauss"]], dtype=torch.float64
        ),
        "python": torch.tensor(internal, dtype=torch.int64),
        "python_rest": torch.tensor([version, gauss_next is not None, gauss_next or 0.0], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Puts back what `rng_state` read."""
    torch.set_rng_state(state["torch"])
    position, has_gauss, gauss = state["numpy_rest"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))  # noqa: NPY002
    version, has_next, gauss_next = state["python_rest"].tolist()
    random.setstate((int(version), tuple(state["python"].tolist()), gauss_next if has_next else None))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
