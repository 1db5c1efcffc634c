"""What the activations of a text cost, and how much memory there is for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexml.distributed import World
from dexml.encoders.packing import Packing
from dexml.encoders.text import TextEncoder

AUTO_SHARE = 0.25  # of the free memory; the rest is for gradients, moments, the loss and others on the machine


def activation_bytes(encoder: TextEncoder, length: int) -> float:
    """Bytes a token that autograd keeps of texts of `length` tokens, weights and constants left out."""
    mode, state = encoder.training, torch.get_rng_state()
    encoder.train()
    try:
        few, more = _saved(encoder, 1, length), _saved(encoder, 3, length)
    finally:
        encoder.train(mode)
        torch.set_rng_state(state)
    return (more - few) / (2 * length)


def _saved(encoder: TextEncoder, texts: int, length: int) -> int:
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []  # alive, so that no address is used twice

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            held.append(x)
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    device = encoder.device
    keys = torch.arange(texts, dtype=torch.int32, device=device)
    ids = torch.full((texts, length), 1, device=device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        if encoder.packs:
            out = encoder.packed(ids.flatten(), Packing(np.full(texts, length)), keys)
        else:
            out = encoder(ids, torch.full((texts,), length, device=device), keys)
    del out
    return sum(sizes.values())


def free_bytes(world: World) -> int:
    """Free memory of this process's device; of a CPU its part of what the machine has available (Linux; else 4 GB)."""
    if world.device.type == "cuda":
        return torch.cuda.mem_get_info(world.device)[0]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    available = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 4 << 30)
    return available // local


def activation_budget(gigabytes: float, world: World) -> float:
    """The key `memory_budget` in bytes; 0 takes a quarter of the free memory, the same on every rank."""
    if gigabytes:
        return gigabytes * 1e9
    return AUTO_SHARE * min(world.gather_objects(free_bytes(world)))
