"""Launching through Accelerate for real: two processes are two, and the ways that lose one are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT, free_port

PROBE = """
import sys
from dexml.distributed import LaunchError, World, launch, leave
try:
    world = World.of(launch(int(sys.argv[1])))
except LaunchError as error:
    print("refused:", error)
    sys.exit()
import torch
total = world.sum_(torch.ones(1))
parts = world.gather_rows(torch.full((world.span(5).stop - world.span(5).start, 1), float(world.rank)), 5)
found = [int(x) for x in parts.flatten()]
sys.stdout.write(f"rank {world.rank} of {world.size} {int(total)} {found}\\n")  # at once: ranks share the terminal
leave()
"""


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe.py"
    path.write_text(PROBE)
    return path


def accelerate(*words: str) -> str:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", str(free_port()), *words]
    env = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_cpu_config_starts_two_processes_that_add_up(probe: Path) -> None:
    out = accelerate("--config_file", "configs/accelerate-cpu.yaml", "--num_processes", "2", str(probe), "0")
    lines = sorted(line for line in out.splitlines() if line.startswith("rank"))
    assert lines == ["rank 0 of 2 2 [0, 0, 1, 1, 1]", "rank 1 of 2 2 [0, 0, 1, 1, 1]"]


def test_the_launch_that_silently_starts_one_process_is_refused(probe: Path) -> None:
    out = accelerate("--cpu", "--num_processes", "2", str(probe), "0")
    assert out.startswith("refused: the launcher was asked for several processes but started one; use: accelerate")


def test_multi_cpu_type_is_refused(probe: Path, tmp_path: Path) -> None:
    config = tmp_path / "multi_cpu.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: 2\nnum_machines: 1\n"
        "use_cpu: true\nmixed_precision: 'no'\nmachine_rank: 0\n"
    )
    assert accelerate("--config_file", str(config), str(probe), "0").startswith("refused")


def test_another_number_than_the_config_wants_is_refused(probe: Path) -> None:
    plain = subprocess.run([sys.executable, str(probe), "2"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert plain.stdout.startswith("refused: 2 processes were asked for, 1 joined")
    plain = subprocess.run([sys.executable, str(probe), "0"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert plain.stdout == "rank 0 of 1 1 [0, 0, 0, 0, 0]\n"


def test_only_one_module_speaks_to_other_processes() -> None:
    users = [p.name for p in (ROOT / "dexml").rglob("*.py") if "torch.distributed" in p.read_text(encoding="utf-8")]
    assert users == ["distributed.py"]
