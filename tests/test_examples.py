"""The scripts of examples/, with the programs of a cluster replaced by ones that write down what they were asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.helpers.processes import ROOT

PROGRAMS = {
    "scontrol": 'test "$*" = "show hostnames gpu[1-2]" && printf "gpu1\\ngpu2\\n"',
    "srun": 'shift; for node in 0 1; do SLURM_NODEID=$node "$@"; done',
    "accelerate": 'echo "$@"',
}


def program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def test_the_slurm_script_starts_every_machine_with_its_rank(tmp_path: Path) -> None:
    for name, body in PROGRAMS.items():
        program(tmp_path / "bin" / name, body)
    program(tmp_path / ".venv" / "bin" / "accelerate", PROGRAMS["accelerate"])
    job = {"SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "70007"}
    env = os.environ | job | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    script = ["bash", str(ROOT / "examples" / "train.slurm"), "configs/a b.yaml", "--lr", "1e-4"]
    done = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "launch --config_file configs/accelerate-multi-node.yaml --num_machines 2 --num_processes 8 "
    )
    assert (
        "--machine_rank 0 --main_process_ip gpu1 --main_process_port 30007 train.py configs/a b.yaml --lr 1e-4" in first
    )
    assert second == first.replace("--machine_rank 0", "--machine_rank 1")
    assert (ROOT / "configs" / "accelerate-multi-node.yaml").is_file()


def test_the_image_gets_all_that_installing_needs() -> None:
    recipe = (ROOT / "examples" / "Dockerfile").read_text()
    kept = [line[1:] for line in (ROOT / "examples" / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"]
    copied = {word for line in recipe.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert copied == set(kept) and all((ROOT / name).exists() for name in kept)
