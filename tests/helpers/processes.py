"""Real processes for tests: N ranks of a Python module, joined by gloo on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(n: int, module: str, *args: str, timeout: float = 240) -> list[str]:
    """Runs `python -m module args` as ranks 0..n-1 and returns what each printed; AssertionError if one failed."""
    port = str(free_port())
    world = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(n)}
    ranks = []
    for rank in range(n):
        env = {**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)} if n > 1 else None
        command = [sys.executable, "-m", module, *args]
        ranks.append(
            subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        outputs = [rank.communicate(timeout=timeout)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, output in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, output
    return outputs
