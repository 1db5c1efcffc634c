"""Dropout masks by hash.

Ordinary dropout draws from one random stream, so a mask depends on the batch, its padding and the process. Here the
mask of an element is a hash of (key of the text, dropout site, position in the text): encoding a text again, in another
chunk, padded or packed or on another machine, drops the same elements. Gradient caching is then exact without saving
random states, and one process equals many with dropout on.
"""

from __future__ import annotations

import torch
from torch import Tensor

# odd 32-bit constants as signed numbers: one an axis, so that an element's code does not depend on the padded width
AXES = (-1640531535, 2135587861, 374761393 * 2 + 1, -2048144777)
MIX_1, MIX_2 = -2048144789, -1028477387  # the two multipliers of murmur3's finalizer


def mix32_(x: Tensor) -> Tensor:
    """Scrambles int32 codes in place (the finalizer of MurmurHash3): every input bit moves every output bit."""
    x ^= (x >> 16) & 0xFFFF
    x *= MIX_1
    x ^= (x >> 13) & 0x7FFFF
    x *= MIX_2
    return x


def site_keys(keys: Tensor, site: int) -> Tensor:
    """int32 [B], the scrambled keys of the texts for their dropout number `site`, from 1 on."""
    return mix32_(keys + site * AXES[0])


def place_codes(shape: torch.Size, positions: Tensor | None = None, device: torch.device | None = None) -> Tensor:
    """A code for each place of a text, every axis adding its own multiples: int32 [1, *shape] of a padded text, or
    [N, *shape] of tokens at `positions` [N]."""
    code = torch.zeros(1, dtype=torch.int32, device=device) if positions is None else positions.int() * AXES[0]
    for axis, size in enumerate(shape, int(positions is not None)):
        code = code.unsqueeze(-1) + torch.arange(size, dtype=torch.int32, device=code.device) * AXES[axis]
    return code


def scaled_mask(code: Tensor, keys: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """The mask of rows with `keys` [R] from their place codes [R or 1, ...]."""
    keep = mix32_(mix32_(code) ^ keys.view(-1, *[1] * (code.dim() - 1))) >= int((p - 0.5) * 2**32)
    return keep.to(dtype).mul_(1 / (1 - p) if p < 1 else 0)
