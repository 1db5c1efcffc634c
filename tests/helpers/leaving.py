"""A rank that takes part and leaves: `python -m tests.helpers.leaving` prints what threads of the group are left."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from dexml.distributed import World, launch, leave


def main() -> None:
    world = World.of(launch())
    from transformers import BertModel  # noqa: F401  as a run does, after it has joined

    world.sum_(torch.ones(3))
    dist.all_reduce(torch.ones(3), async_op=True).wait()
    names = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    assert any("gloo" in name for name in names)
    leave()
    left = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    print("left:", sorted(name for name in left if "gloo" in name))


if __name__ == "__main__":
    main()
